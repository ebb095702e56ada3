"""Where the windows lie in which images larger than those of training are seen."""

from collections.abc import Iterator


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Returns where windows begin so that they cover a side; the last one ends with it.

    Args:
        length: Of the side.
        window: Of a window; a shorter side has one, as long as itself.
        stride: From a window to the next, at most `window`.
    """
    assert 0 < stride <= window, "windows would leave gaps"
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def windows(height: int, width: int, side: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Yields rows and columns of the square windows of an image, row by row."""
    for top in window_starts(height, side, stride):
        for left in window_starts(width, side, stride):
            yield slice(top, top + side), slice(left, left + side)
