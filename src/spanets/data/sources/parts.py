"""Common names of the parts of a data set: train, val and test."""

import re
from collections.abc import Iterable
from typing import Literal

from spanets_runtime.errors import UserError

Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = ("train", "val", "test")

PURPOSES: dict[Part, str] = {"train": "training", "val": "validation", "test": "testing"}
"""The purpose of each part, for messages."""

_WORDS: dict[Part, tuple[str, ...]] = {
    "train": ("training", "train"),
    "val": ("validation", "valid", "val", "dev", "evaluation", "eval"),
    "test": ("testing", "test"),
}

# "train_set", "Training Set", "val-data", "testimages"
_ENDING = r"(?:[-_. ]?(?:set|split|data|images|imgs))?"
_PATTERNS: dict[Part, str] = {
    part: f"(?:{'|'.join(words)}){_ENDING}" for part, words in _WORDS.items()
}


def part_of(name: str) -> Part | None:
    """Returns the part that a folder or split of this name stands for, or None.

    "Train", "train_set", "training" and "TRAINING SET" all stand for "train".
    """
    return next(
        (part for part, spelling in _PATTERNS.items() if re.fullmatch(spelling, name.lower())), None
    )


def part_in(name: str) -> Part | None:
    """Returns the part named within a longer name such as "photos-train-0001.tar", or None.

    Only whole words count: "trainer-0.tar" names no part. Of several parts, the first counts.
    """
    found: list[tuple[int, Part]] = []
    for part, spelling in _PATTERNS.items():
        if match := re.search(f"(?<![a-z]){spelling}(?![a-z])", name.lower()):
            found.append((match.start(), part))
    return min(found)[1] if found else None


def name_parts(names: Iterable[str], where: str) -> dict[Part, str]:
    """Returns the name that stands for each part, in the order train, val, test.

    Raises:
        UserError: two of them stand for the same part; the message names `where`.
    """
    found: dict[Part, str] = {}
    for name in names:
        part = part_of(name)
        if part is None:
            continue
        if part in found:
            raise UserError(
                f"{where}: {found[part]} and {name} are both for {PURPOSES[part]}; keep one"
            )
        found[part] = name
    return {part: found[part] for part in PARTS if part in found}
