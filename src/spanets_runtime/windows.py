"""Positions of sliding windows and tiles over images that are larger than the training images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Returns the starts of windows that cover a side; the last window ends at its end.

    Args:
        length: Length of the side, in pixels.
        window: Length of a window, in pixels; a shorter side gets one window.
        stride: Step between windows, in pixels, at most `window`.
    """
    assert 0 < stride <= window, "windows would leave gaps"
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def windows(height: int, width: int, side: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Yields the row and column slices of an image's square windows, row by row."""
    for top in window_starts(height, side, stride):
        for left in window_starts(width, side, stride):
            yield slice(top, top + side), slice(left, left + side)


Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as Pillow's `Image.crop` takes them."""


def corners(width: int, height: int, share: float) -> list[Box]:
    """Returns the four corners of an image, each with this share of both sides."""
    across, down = round(width * share), round(height * share)
    starts = [(left, top) for top in (0, height - down) for left in (0, width - across)]
    return [(left, top, left + across, top + down) for left, top in starts]


@dataclass(frozen=True)
class Tiling:
    """Square tiles that overlap, to predict a large image part by part.

    Attributes:
        side: Side of a tile in pixels; a shorter side of an image gets one tile.
        overlap: Smallest overlap of neighbours in pixels, at most half of a tile.
    """

    side: int
    overlap: int

    def __post_init__(self) -> None:
        """Checks the numbers."""
        assert 0 <= self.overlap <= self.side // 2

    def tiles(self, width: int, height: int) -> list[Box]:
        """Returns the tiles of an image of this size, row by row."""
        columns, rows = (self._spans(length) for length in (width, height))
        return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]

    def cells(self, width: int, height: int) -> list[Box]:
        """Returns the part of each tile up to the middle of its overlaps."""
        columns, rows = (_middles(self._spans(length)) for length in (width, height))
        return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        starts = window_starts(length, self.side, self.side - self.overlap)
        return [(start, min(start + self.side, length)) for start in starts]


def _middles(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    borders = [(end + start) // 2 for (_, end), (start, _) in pairwise(spans)]
    return list(pairwise([spans[0][0], *borders, spans[-1][1]]))
