"""COCO's run lengths: a mask as alternating lengths of runs of 0 and 1, column by column.

The format is `{"size": [height, width], "counts": …}`. Counts are a list ("uncompressed") or a text
of printable characters ("compressed"). Decoding validates them, because annotation files may come
from anywhere, and COCO's own decoder writes past its memory when counts do not add up.

Source: https://github.com/cocodataset/cocoapi, `common/maskApi.h`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]


def encode_runs(mask: NDArray[Any]) -> list[int]:
    """Returns the uncompressed counts of a mask (H, W); the first is for zeros, and may be 0."""
    flat = np.asarray(mask, bool).ravel(order="F")  # (H, W) -> (W·H)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def decode_runs(counts: Sequence[int] | str, height: int, width: int) -> Mask:
    """Decodes compressed or uncompressed counts to a mask (H, W) of 0 and 1.

    Raises:
        ValueError: the counts are invalid, or do not add up to height times width.
    """
    lengths = read_lengths(counts, height, width)
    values = np.arange(len(lengths), dtype=np.uint8) % 2
    return np.repeat(values, lengths).reshape(width, height).T  # (W·H) -> (H, W)


def read_lengths(counts: Sequence[int] | str, height: int, width: int) -> list[int]:
    """Returns validated uncompressed counts, without decoding the mask.

    Raises:
        ValueError: see `decode_runs`.
    """
    lengths = _read_text(counts) if isinstance(counts, str) else list(counts)
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError("run lengths must be whole numbers of 0 or more")
    if sum(lengths) != height * width:
        raise ValueError(f"run lengths add up to {sum(lengths)}, not {height}x{width} pixels")
    return lengths


def _read_text(text: str) -> list[int]:
    """Reads compressed counts: five bits per character, lowest first, and a continuation bit.

    From the fourth on, a count is stored as the difference to the count two places before.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("run lengths are not COCO's compressed text")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # the number continues
            continue
        if bits & 16:  # its sign
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths end within a number")
    return lengths
