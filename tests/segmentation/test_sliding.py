"""Window by window is what it says: every pixel seen, the mean of those that see it."""

import pytest
import torch

from spanets.segmentation import slide
from spanets_runtime.windows import window_starts


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (100, [0]),  # smaller than the window
        (512, [0]),
        (513, [0, 1]),
        (853, [0, 341]),
        (854, [0, 341, 342]),
        (2048, [0, 341, 682, 1023, 1364, 1536]),
    ],
)
def test_starts(length, starts):
    assert window_starts(length, 512, 341) == starts


def test_every_pixel_is_seen_by_whole_windows():
    for length in range(1, 60):
        for window, stride in ((10, 7), (10, 10), (10, 1)):
            starts = window_starts(length, window, stride)
            seen = {i for start in starts for i in range(start, min(start + window, length))}
            assert seen == set(range(length))
            assert starts == sorted(set(starts))
            assert length < window or all(start + window <= length for start in starts)


@pytest.mark.parametrize("size", [(7, 5), (10, 10), (23, 41), (11, 9)])
def test_a_model_that_looks_at_one_pixel_does_not_notice(size):
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(slide(lambda x: x[:, :2].exp(), images, 10, 7), images[:, :2].exp())


def test_logits_of_overlapping_windows_are_averaged():
    """Three windows of four on a row of eight; each answers with its own number."""
    numbers = iter([1.0, 2.0, 4.0])
    logits = slide(lambda x: torch.full_like(x, next(numbers)), torch.zeros(1, 1, 4, 8), 4, 3)
    expected = torch.tensor([1, 1, 1, 1.5, 3, 3, 3, 4])  # windows begin at 0, 3 and 4
    assert torch.equal(logits, expected.expand(1, 1, 4, 8))


def test_windows_that_leave_gaps_are_a_mistake():
    with pytest.raises(AssertionError, match="gaps"):
        window_starts(100, 10, 11)
