"""The meaning of mask values: classes, or pixels to ignore."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spanets.formats.colours import IGNORED
from spanets_runtime.errors import UsageError, nearest
from spanets_runtime.labels import MAX_NUMBER

IGNORE = "ignore"
"""The word for ignored pixels in a recipe."""

BINARY = "binary"
"""The word for masks of two classes: 0, and all other values."""

BINARY_CLASSES = ("background", "foreground")

_UNKNOWN = -1

# Names that YAML would read as a boolean or null.
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})

Given = Literal["binary"] | Mapping[int, int | str]
"""`data.mask_values`: `BINARY`, or a class number, class name or `IGNORE` for each value."""


@dataclass(frozen=True)
class MaskValues:
    """The meaning of mask values.

    Attributes:
        classes: Pairs of a mask value and its class, or `IGNORED`.
        others: The class of all other values, or None if they are errors.
        is_given: Whether the recipe sets this; if not, it is a convention that masks may violate.
    """

    classes: tuple[tuple[int, int], ...]
    others: int | None = None
    is_given: bool = False

    def to_classes(self, numbers: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], list[int]]:
        """Maps mask values (H, W) to classes or `IGNORED`, (H, W).

        Returns:
            The classes, and the values without a meaning in order.
        """
        found = _table(self.classes, self.others)[numbers]
        unknown = np.unique(numbers[found == _UNKNOWN]).tolist()
        return found.astype(np.uint8), unknown

    def class_of(self, number: int) -> int | None:
        """Returns the class of a mask value, `IGNORED`, or None if it has no meaning."""
        found = int(_table(self.classes, self.others)[number])
        return None if found == _UNKNOWN else found

    def stored(self, count: int) -> list[int]:
        """Returns the value to write into masks for each of `count` classes."""
        known = {c: number for number, c in reversed(self.classes)}
        rest = 255  # for `BINARY` any value but 0 is right; 255 is white
        return [known.get(c, rest) for c in range(count)]

    def describe(self) -> str:
        """Returns the allowed mask values, for messages."""
        numbers = [number for number, c in self.classes if c != IGNORED]
        ignored = [number for number, c in self.classes if c == IGNORED]
        text = _ranges(numbers)
        return f"{text} (and {_ranges(ignored)} for pixels to ignore)" if ignored else text


def plain_values(classes: int, first: int = 0) -> MaskValues:
    """Returns the default: classes numbered from `first`; smaller values and 255 are ignored."""
    assert first + classes <= IGNORED
    ignored = [(number, IGNORED) for number in (*range(first), IGNORED)]
    return MaskValues((*((first + c, c) for c in range(classes)), *ignored))


def given_values(given: Given, classes: Sequence[str]) -> MaskValues:
    """Reads `data.mask_values` of a recipe.

    Args:
        given: The value of `data.mask_values`.
        classes: The class names.

    Raises:
        UsageError: an unknown class, or a class without a mask value.
    """
    if isinstance(given, str):
        if len(classes) != 2:
            raise UsageError(
                f"data.mask_values is {BINARY}, for two classes, but there are {len(classes)}"
            )
        return MaskValues(((0, 0),), others=1, is_given=True)
    found = {number: _class_of(word, classes) for number, word in given.items()}
    found.setdefault(IGNORED, IGNORED)
    if missing := set(range(len(classes))) - set(found.values()):
        name = classes[min(missing)]
        raise UsageError(f"data.mask_values gives no number for class {min(missing)} ({name})")
    return MaskValues(tuple(sorted(found.items())), is_given=True)


def named_classes(given: Given | None) -> list[str] | None:
    """Returns the class names that `data.mask_values` contains, or None."""
    if isinstance(given, str):
        return list(BINARY_CLASSES)
    words = [word for word in (given or {}).values() if word not in (IGNORE, IGNORED)]
    named = [word for word in words if isinstance(word, str)]
    return list(dict.fromkeys(named)) if len(named) == len(words) and named else None


def suggest_values(numbers: Sequence[int], classes: Sequence[str]) -> str:
    """Returns a suggestion for `data.mask_values`, as YAML.

    Args:
        numbers: All mask values that occur, in order.
        classes: The class names.
    """
    for left_out in ((), (IGNORED,), (0,), (0, IGNORED)):
        rest = [number for number in numbers if number not in left_out]
        if len(rest) == len(classes) and set(left_out) <= set(numbers):
            pairs = [*zip(rest, classes, strict=True), *((n, IGNORE) for n in left_out)]
            return "{" + ", ".join(f"{n}: {_quote(name)}" for n, name in sorted(pairs)) + "}"
    return f"{{{numbers[0]}: {_quote(classes[0])}, …}}"


def _class_of(word: Any, classes: Sequence[str]) -> int:
    """Returns the class number of a class name or number in a recipe."""
    if word in (IGNORE, IGNORED):
        return IGNORED
    if isinstance(word, str):
        if word not in classes:
            raise UsageError(
                f"data.mask_values: unknown class {word!r}{nearest(word, [*classes, IGNORE])}"
            )
        return classes.index(word)
    if word not in range(len(classes)):
        raise UsageError(
            f"data.mask_values: {word} is no class, the {len(classes)} classes are 0 to "
            f"{len(classes) - 1}"
        )
    return word


def _quote(name: str) -> str:
    """Returns a name that YAML reads as a text, quoted if needed."""
    is_plain = name.isidentifier() and name.lower() not in _YAML_WORDS
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def _ranges(numbers: Sequence[int]) -> str:
    """Returns numbers as a text with ranges, such as "0 to 3, 7"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join(" to ".join(map(str, part)) for part in parts)


@lru_cache(maxsize=16)
def _table(classes: tuple[tuple[int, int], ...], others: int | None) -> NDArray[np.int16]:
    """Returns the class of each mask value, (65536,)."""
    table = np.full(MAX_NUMBER + 1, _UNKNOWN if others is None else others, np.int16)
    for number, c in classes:
        table[number] = c
    return table
