"""Limits the size of nested values from a file, before anything copies or prints them.

With YAML aliases, one object in memory can occur in many places, so that a few hundred bytes stand
for billions of values. Every occurrence counts here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spanets_runtime.errors import UsageError

MOST_VALUES = 10_000
MOST_DEPTH = 50
MOST_CHARACTERS = 2**18
MOST_DIGITS = 1000  # of an integer; Python's own limit is 4300


class BoundError(ValueError):
    """A value exceeds a bound; the message continues a sentence that names the value."""


@dataclass(frozen=True)
class Extent:
    """The size of a nested value, with every occurrence of a shared object counted.

    Attributes:
        values: Number of values, including containers and keys.
        characters: Number of characters in all texts.
        depth: Number of containers around the innermost value.
    """

    values: int = 1
    characters: int = 0
    depth: int = 0


def add_extents(parts: Iterable[Extent]) -> Extent:
    """Returns the extent of a container from those of its items.

    Raises:
        BoundError: it exceeds a bound.
    """
    values, characters, depth = 1, 0, 0
    for part in parts:
        values += part.values
        characters += part.characters
        depth = max(depth, part.depth)
        if values > MOST_VALUES:
            raise BoundError(f"holds more than {MOST_VALUES:,} values")
        if characters > MOST_CHARACTERS:
            raise BoundError(f"holds more than {MOST_CHARACTERS:,} characters")
    check_depth(depth + 1)
    return Extent(values, characters, depth + 1)


def check_depth(depth: int) -> None:
    """Raises a BoundError for a value nested too deep."""
    if depth > MOST_DEPTH:
        raise BoundError(f"is nested deeper than {MOST_DEPTH} levels")


def check_plain(value: Any, origin: str) -> None:
    """Checks that nested values of dicts, lists, tuples and texts are within the bounds.

    Args:
        value: The nested value.
        origin: Source of the value, for the message.

    Raises:
        UsageError: it is too large or nested too deep, or a text in it holds a NUL character.
    """
    try:
        _measure(value, 0, {})
    except BoundError as error:
        raise UsageError(f"{origin}: {error}") from None


def _measure(value: Any, level: int, known: dict[int, Extent]) -> Extent:
    if id(value) in known:
        return known[id(value)]
    check_depth(level)  # before the recursion, because a value may contain itself
    if isinstance(value, Mapping):
        parts: Iterable[Any] = (inner for pair in value.items() for inner in pair)
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    else:
        return _measure_leaf(value)
    extent = add_extents(_measure(part, level + 1, known) for part in parts)
    known[id(value)] = extent
    return extent


def _measure_leaf(value: Any) -> Extent:
    if value is not None and not isinstance(value, str | bytes | int | float):
        raise BoundError(f"holds a {type(value).__name__}, which is no plain value")
    if isinstance(value, str):
        _check_text(value)
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        raise BoundError(f"holds a whole number of more than {MOST_DIGITS:,} digits")
    characters = len(value) if isinstance(value, str | bytes | bytearray) else 0
    if characters > MOST_CHARACTERS:
        raise BoundError(f"holds more than {MOST_CHARACTERS:,} characters")
    return Extent(1, characters)


def _check_text(text: str) -> None:
    """Refuses characters that file paths and terminals cannot handle."""
    if "\0" in text:
        raise BoundError("a text in it holds a NUL character")
    try:
        text.encode("utf-8", "surrogateescape")  # allows file names that are not UTF-8
    except UnicodeEncodeError:
        raise BoundError("a text in it holds half a character, a surrogate") from None
