"""Finds the shards of a data set: by a folder's `dataset.json` or files, or by a pattern."""

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spanets.data.sources import remote
from spanets.data.sources.parts import part_in, part_of
from spanets.data.sources.shard_index import MAX_CLASSES
from spanets_runtime.errors import UserError, require
from spanets_runtime.listing import list_entries

DATASET = "dataset.json"
FORMAT = 1

MAX_SHARDS = 2**18
_MAX_DESCRIPTION_BYTES = 2**28
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

# First and last number of a range in braces.
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}")


@dataclass(frozen=True)
class ShardSet:
    """The shards of a data set.

    Attributes:
        parts: Paths or URLs of the shards by part.
        classes: Class names from `dataset.json`, or None.
        base: Common prefix of all locations; the rest names a shard even if the data set moves.
        notes: Messages about what was left out.
    """

    parts: dict[str, list[str]]
    classes: list[str] | None
    base: str
    notes: tuple[str, ...] = ()


def find_shards(root: str) -> ShardSet:
    """Finds the shards of a folder, URL or pattern.

    Raises:
        UserError: there are no shards or too many, some are compressed, or only some names contain
            a part.
    """
    described = read_description(root)
    if described is not None:
        return described
    is_folder = not remote.is_url(root) and os.path.isdir(root)
    shards = _find_in(root) if is_folder else _expand(root)
    if not shards:
        raise UserError(f"{root}: no such shards; name a folder or a pattern, such as train-*.tar")
    parts: dict[str | None, list[str]] = {}
    for location in shards:
        parts.setdefault(_part_of(location), []).append(location)
    base = os.path.join(root, "") if is_folder else _fixed_start(root)
    if parts.keys() == {None}:
        return ShardSet({"train": shards}, None, base)
    if None in parts:
        raise UserError(f"{parts[None][0]}: its name has no part, train or val, but others do")
    if "train" not in parts:
        raise UserError(f"{root}: shards of {' and '.join(map(str, parts))}, none to train on")
    return ShardSet({str(part): found for part, found in parts.items()}, None, base)


def read_description(root: str) -> ShardSet | None:
    """Reads the `dataset.json` of a folder or URL, if there is one.

    Raises:
        UserError: it is damaged.
    """
    if remote.is_url(root):
        where = root.rstrip("/")
        content = None if where.endswith(".tar") else remote.read_small(f"{where}/{DATASET}")
    else:
        where = os.path.abspath(root)
        content = _read_file(Path(where, DATASET))
    if content is None:
        return None
    try:
        values = json.loads(content)
        if values["format"] != FORMAT or "train" not in values["parts"]:
            raise ValueError("written by another version")
        parts = {str(name): _locations(where, part) for name, part in values["parts"].items()}
        return ShardSet(parts, _read_classes(values["classes"]), f"{where}/")
    # A file of another kind can cause any of these.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}/{DATASET}: damaged ({error})") from None


def _read_file(path: Path) -> bytes | None:
    if not os.path.isfile(path):  # False, without an error, also for a name that is too long
        return None
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > _MAX_DESCRIPTION_BYTES:
        raise UserError(f"{path}: has more than {_MAX_DESCRIPTION_BYTES} bytes")
    return content


def _locations(where: str, part: dict[str, Any]) -> list[str]:
    # Only the file names, so that a description cannot point elsewhere.
    names = [os.path.basename(row["name"]) for row in part["shards"]]
    if not 0 < len(names) <= MAX_SHARDS or not all(names):
        raise ValueError(f"lists {len(names)} shards for a part, or one without a name")
    return [f"{where}/{name}" for name in names]


def _read_classes(classes: Any) -> list[str]:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are no list of names")
    if not 0 < len(classes) <= MAX_CLASSES or len(set(classes)) < len(classes):
        raise ValueError(f"it names {len(classes)} classes, or one of them twice")
    return classes


def read_classes_beside(found: ShardSet) -> list[str] | None:
    """Returns the class names of the `dataset.json` beside shards found by a pattern, or None."""
    folders = {os.path.dirname(location) for some in found.parts.values() for location in some}
    if len(folders) > 1:
        return None
    folder = folders.pop() or "."
    with suppress(UserError):  # many servers answer a missing file with an error other than 404
        described = read_description(folder)
        return None if described is None else described.classes
    return None


def _find_in(folder: str) -> list[str]:
    """Returns the shards below a folder, sorted.

    Raises:
        UserError: the folder cannot be read, or some are compressed.
    """
    files = list(_walk(folder))
    compressed = sorted(path for path in files if path.lower().endswith(_COMPRESSED))
    if compressed:
        raise UserError(
            f"{compressed[0]}: a compressed shard, one of {len(compressed)}; uncompress them, "
            "because compressed shards have no random access"
        )
    return sorted(path for path in files if path.lower().endswith(".tar"))


def _walk(folder: str) -> Iterator[str]:
    """Yields the files below a folder; follows links to folders, and visits each folder once."""
    waiting, seen = [folder], set[str]()
    while waiting:
        here = waiting.pop()
        if (place := os.path.realpath(here)) in seen:
            continue
        seen.add(place)
        for entry in list_entries(here):
            if entry.is_dir():
                waiting.append(entry.path)
            else:
                yield entry.path


def _expand(root: str) -> list[str]:
    """Returns the files that match a pattern, each once, in order."""
    found: list[str] = []
    for pattern in _expand_braces(root):
        if remote.is_url(pattern):
            found += remote.expand(pattern)
        elif set(pattern) & set("*?["):
            found += sorted(glob.glob(pattern, recursive=True))
        else:
            found.append(pattern)
    return list(dict.fromkeys(found))


def _expand_braces(root: str) -> list[str]:
    """Expands braces as a shell does.

    Raises:
        UserError: they are unbalanced, or stand for too many names.
    """
    braces = require("braceexpand", "train")
    too_many = f"{root}: stands for more than {MAX_SHARDS} shards; correct the numbers in braces"
    for first, last in _RANGE.findall(root):
        # Python refuses to convert strings of too many digits.
        if max(len(first), len(last)) > 18 or abs(int(last) - int(first)) >= MAX_SHARDS:
            raise UserError(too_many)
    try:
        patterns = list(islice(braces.braceexpand(root), MAX_SHARDS + 1))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{root}: {error}") from None
    if len(patterns) > MAX_SHARDS:
        raise UserError(too_many)
    return patterns


def _fixed_start(pattern: str) -> str:
    """Returns the folders of a pattern before its first special character."""
    fixed = re.match(r"[^*?\[{]*", pattern)
    assert fixed is not None  # it matches nothing as well
    return fixed[0][: fixed[0].rfind("/") + 1]


def _part_of(location: str) -> str | None:
    """Returns the part by the name of a shard, else by that of its folder, or None."""
    *_, folder, name = ["", *location.split("/")]
    return part_in(name) or part_of(folder)


def names_below(base: str, locations: Sequence[str]) -> list[str]:
    """Returns the names of shards relative to `base`, which stay when the data set moves."""
    return [location.removeprefix(base) for location in locations]
