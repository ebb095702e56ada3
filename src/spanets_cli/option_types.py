"""Types of option values for argparse, each with its range."""

import argparse
import math
import os
import re
from collections.abc import Callable

from spanets_runtime.text import shorten

_LARGEST_SHARD = 10**13  # bytes


def whole(low: int, high: int) -> Callable[[str], int]:
    """Returns a type for whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        # int() refuses numbers of thousands of digits with another error.
        if re.fullmatch(r"[-+]?[0-9]{1,18}", text.strip()) and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{shorten(text)} is no whole number from {low} to {high}")

    return read


def sides(low: int, high: int) -> Callable[[str], tuple[int, int]]:
    """Returns a type for height and width, such as 256x512, or one side for both."""

    def read(text: str) -> tuple[int, int]:
        height, cross, width = text.partition("x")
        try:
            return whole(low, high)(height), whole(low, high)(width if cross else height)
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(
                f"{shorten(text)} is no side from {low} to {high}, nor two such as 256x512"
            ) from None

    return read


def local_path(text: str) -> str:
    """Reads a path, or another word; expands the `~` that a shell leaves in `--out=~/x`."""
    return os.path.expanduser(text)


def fraction(text: str) -> float:
    """Reads a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{shorten(text)} is no number from 0 to 1")
    return value


def positive(text: str) -> float:
    """Reads a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{shorten(text)} is no number above 0")
    return value


def scale(text: str) -> float:
    """Reads a factor of an image's size, from 0.25 to 4."""
    value = _number(text)
    if not 0.25 <= value <= 4:
        raise argparse.ArgumentTypeError(
            f"{shorten(text)} is no scale from 0.25 to 4; put other words before it"
        )
    return value


def value_range(text: str) -> tuple[float, float]:
    """Reads two finite numbers, the smaller one first, such as 0,4095."""
    low, _, high = text.partition(",")
    found = _number(low), _number(high)
    if not -math.inf < found[0] < found[1] < math.inf:
        raise argparse.ArgumentTypeError(
            f"{shorten(text)} is no range: give two numbers, the smaller first, such as 0,4095"
        )
    return found


def byte_size(text: str) -> int:
    """Reads 512MB, 1.5 GiB, 4000."""
    match = re.fullmatch(
        r"([0-9]{1,14}(?:\.[0-9]{1,9})?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower()
    )
    if match is None:
        raise argparse.ArgumentTypeError(f"{shorten(text)} is no size, such as 512MB or 1GiB")
    number, prefix, binary = match.groups()
    factor = (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
    size = int(float(number) * factor)
    if not 1 <= size <= _LARGEST_SHARD:
        raise argparse.ArgumentTypeError(f"{shorten(text)} is no size from 1B to 10TB")
    return size


def _number(text: str) -> float:
    """Returns a number, or NaN if the text is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
