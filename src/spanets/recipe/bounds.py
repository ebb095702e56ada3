"""Bounds of plain nested values that a file holds, before anything copies them or writes them out.

A value that stands in several places is one object in memory, so a few hundred bytes can stand for
billions of values. It is counted at each place here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spanets_runtime.errors import UsageError

MOST_VALUES = 10_000
MOST_DEPTH = 50
MOST_CHARACTERS = 2**18
MOST_DIGITS = 1000  # of a whole number; Python itself writes out 4300


class BoundError(ValueError):
    """A value beyond a bound; the message says which, as the end of a sentence."""


@dataclass(frozen=True)
class Extent:
    """How large a nested value is, with what stands in several places counted at each.

    Attributes:
        values: How many there are, containers and keys among them.
        characters: Of all texts.
        depth: Containers around the innermost value.
    """

    values: int = 1
    characters: int = 0
    depth: int = 0


def add_extents(parts: Iterable[Extent]) -> Extent:
    """Returns the extent of a container of these parts.

    Raises:
        BoundError: it is beyond a bound.
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
    """Raises BoundError for more nested containers than are allowed."""
    if depth > MOST_DEPTH:
        raise BoundError(f"is nested deeper than {MOST_DEPTH} levels")


def check_plain(value: Any, origin: str) -> None:
    """Checks that nested values of dicts, lists, tuples and texts are within the bounds.

    Args:
        value: What a file holds, or a program gives.
        origin: Where it is from, for the message.

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
    check_depth(level)  # before the recursion: a value may hold itself
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
    """Refuses what no path of a file and no line of a terminal can hold."""
    if "\0" in text:
        raise BoundError("a text in it holds a NUL character")
    try:
        text.encode("utf-8", "surrogateescape")  # as Python reads names of files that are no UTF-8
    except UnicodeEncodeError:
        raise BoundError("a text in it holds half a character, a surrogate") from None
