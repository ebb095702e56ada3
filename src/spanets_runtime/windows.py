"""Positions of sliding windows over images that are larger than the training images."""

from collections.abc import Iterator


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
