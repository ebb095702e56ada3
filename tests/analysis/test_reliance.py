"""Suppression takes one cue and leaves others; pairs and intervals are what they are said to be."""

from collections import Counter

import numpy as np
import pytest
import torch

from spanets.analysis import (
    band_pass,
    bootstrap,
    mix_frequencies,
    pair_classes,
    shuffle_patches,
    smooth_texture,
    suppressions,
    without_colour,
)
from spanets.analysis.reliance import luminance, suppression_names


def photos(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def patches(image: torch.Tensor, grid: int) -> list[bytes]:
    height, width = image.shape[-2] // grid, image.shape[-1] // grid
    return [
        image[:, i * height : (i + 1) * height, j * width : (j + 1) * width].numpy().tobytes()
        for i in range(grid)
        for j in range(grid)
    ]


@pytest.mark.parametrize(("size", "grid"), [((8, 8), 2), ((13, 19), 4), ((16, 12), 8)])
def test_shuffling_keeps_the_patches_and_moves_each(size, grid):
    images = photos(5, 3, *size)
    for image, shuffled in zip(images, shuffle_patches(images, grid), strict=True):
        before, after = patches(image, grid), patches(shuffled, grid)
        assert Counter(before) == Counter(after)
        assert all(ours != other for ours, other in zip(before, after, strict=True))
        height, width = (side // grid * grid for side in size)
        assert torch.equal(image[:, height:], shuffled[:, height:])
        assert torch.equal(image[:, :, width:], shuffled[:, :, width:])


def test_orders_do_not_depend_on_the_batches():
    images = photos(1, 1, 8, 8).expand(6, -1, -1, -1)
    whole = shuffle_patches(images, 4)
    parts = [shuffle_patches(images[a:b], 4, range(a, b)) for a, b in ((0, 1), (1, 6))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, shuffle_patches(images, 4, seed=1))
    assert len({image.numpy().tobytes() for image in whole}) == 6


@pytest.mark.parametrize("grid", [0, 1, 9])
def test_grids_without_a_shuffle_are_refused(grid):
    with pytest.raises(ValueError, match=f"{grid} patches a side, must be from 2 to .*, 8x8"):
        shuffle_patches(photos(1, 3, 8, 8), grid)


def test_grey_images_have_the_same_luminance_and_no_colour():
    images = photos(4, 3, 7, 9)
    grey = without_colour(images)
    torch.testing.assert_close(luminance(grey), luminance(images))
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 1], grey[:, 2])
    torch.testing.assert_close(without_colour(grey), grey)
    with pytest.raises(ValueError, match="images have 1 channels"):
        without_colour(images[:, :1])


def test_smoothing_is_the_bilateral_mean():
    """The sum over the window, written as it is defined."""
    image, tolerance, share = photos(1, 3, 9, 11).double(), 0.3, 0.1
    deviation, radius = 1.1, 3
    found = smooth_texture(image, tolerance, share)
    for y, x in [(0, 0), (4, 5), (8, 10), (2, 9)]:
        total, weights = torch.zeros(3, dtype=torch.float64), 0.0
        for i in range(max(y - radius, 0), min(y + radius + 1, 9)):
            for j in range(max(x - radius, 0), min(x + radius + 1, 11)):
                apart = (image[0, :, i, j] - image[0, :, y, x]).square().mean()
                far = (i - y) ** 2 + (j - x) ** 2
                weight = (-apart / (2 * tolerance**2) - far / (2 * deviation**2)).exp()
                total += weight * image[0, :, i, j]
                weights += weight
        torch.testing.assert_close(found[0, :, y, x], total / weights)


def test_smoothing_takes_texture_and_keeps_edges():
    step = torch.zeros(1, 3, 32, 32)
    step[..., 16:] = 0.8
    texture = 0.03 * (2 * photos(1, 1, 32, 32) - 1)
    smooth = smooth_texture(step + texture, 0.1, share=0.05)
    assert smooth[..., :16].std() < 0.3 * texture.std()
    rise = (smooth[..., 16] - smooth[..., 15]).mean()
    assert rise == pytest.approx(0.8, abs=0.01)
    flat = torch.full((2, 3, 8, 8), 0.4)
    torch.testing.assert_close(smooth_texture(flat, 0.1, share=0.5), flat)


@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
def test_low_and_high_frequencies_of_one_image_are_the_image(size):
    a, b = photos(2, 3, *size), photos(2, 3, *size, seed=1)
    for cutoff in (0.0, 0.3, 2.0):
        torch.testing.assert_close(mix_frequencies(a, a, cutoff), a)
        mixed = mix_frequencies(a, b, cutoff)
        torch.testing.assert_close(
            mixed, band_pass(a, 0.0, cutoff) + b - band_pass(b, 0.0, cutoff), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(  # both ways together have the frequencies of both
            mixed + mix_frequencies(b, a, cutoff), a + b, rtol=0, atol=1e-5
        )
    torch.testing.assert_close(mix_frequencies(a, b, 2.0), a)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_only_red_green_and_blue_have_a_colour(channels):
    images = photos(2, channels, 16, 16)
    found = dict(suppressions(images))
    assert list(found) == suppression_names(channels)
    assert ("colour: grey" in found) == (channels == 3)
    for suppressed in found.values():
        assert suppressed.shape == images.shape
        assert not torch.equal(suppressed, images)


@pytest.mark.parametrize("counts", [[5, 5], [9, 2], [4, 4, 4, 1], [1, 1, 1], [6], [], [3, 2, 2]])
def test_as_many_pairs_of_two_classes_as_there_can_be(counts):
    classes = [name for name, count in enumerate(counts) for _ in range(count)]
    pairs = pair_classes(classes)
    assert all(classes[a] != classes[b] for a, b in pairs)
    members = [place for pair in pairs for place in pair]
    assert len(set(members)) == len(members)
    others = len(classes) - max(counts, default=0)
    assert len(pairs) == min(others, len(classes) // 2)
    assert pairs == pair_classes(classes)


def test_any_two_classes_may_meet():
    classes = [name for name in range(6) for _ in range(20)]
    met = {frozenset((classes[a], classes[b])) for a, b in pair_classes(classes)}
    assert len(met) == 15
    assert pair_classes(classes, seed=1) != pair_classes(classes)


def test_intervals_hold_the_truth_in_95_of_100_samples():
    """The ratio of two dependent accuracies: 0.8 on whole images, of which 0.6 stay right."""
    draws = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        whole = draws.random(200) < 0.8
        left = whole & (draws.random(200) < 0.6)
        low, high = bootstrap(np.stack([whole, left], 1), lambda means: means[:, 1] / means[:, 0])
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 300 <= 0.98  # within 2.4 standard errors of 0.95


def test_pairing_narrows_the_interval_of_a_ratio():
    right = np.arange(100) < 70

    def width(whole, left):
        low, high = bootstrap(np.stack([whole, left], 1), lambda means: means[:, 1] / means[:, 0])
        return high - low

    assert width(right, right) == 0  # every answer is as before
    assert width(right, np.roll(right, 30)) > 0.1


def test_ratios_to_nothing_are_undefined():
    none = np.zeros((10, 2), dtype=bool)
    assert bootstrap(none, lambda means: means[:, 1] / means[:, 0]) is None
    assert bootstrap(none, lambda means: means[:, 0]) == (0, 0)
