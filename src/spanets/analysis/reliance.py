"""Measures which cues a classifier relies on: suppresses one of them, or lets frequencies conflict.

A cue is suppressed in the images, and the accuracy that is left tells how much the answers relied
on it (Burgert et al., NeurIPS 2025): shuffled patches have no global shape, smoothing that keeps
edges takes texture away, a grey image has no colour. The filters' strengths are this project's. In
a conflict of frequencies, the low frequencies of an image meet the high ones of another class.

Images are in pixel units (0 to 1), before standardization. Nothing is clipped.

Shape legend: `B` images, `C` channels, `H W` image size, `g` patches a side.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from math import ceil, exp

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spanets.analysis.robustness import band_pass

GRIDS = (2, 4, 8)
"""Patches a side of `suppressions`; more patches leave less shape."""

TOLERANCES = (0.1, 0.3)
"""Tolerances of `suppressions`; a larger one leaves less texture, and weaker edges."""

SMOOTHED_SHARE = 0.0125
"""Deviation of `smooth_texture` in space, as a share of the image's side: 2.8 pixels of 224."""

CONFLICT_CUTOFFS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Cut-offs of the conflict, as fractions of Nyquist; denser where images have most energy."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""

RESAMPLES = 10_000
"""Resamples of a bootstrap interval."""


def suppressions(
    images: Tensor, numbers: Sequence[int] | None = None, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Yields images without one of their cues, each with the name from `suppression_names`.

    Args:
        images: Images (B, C, H, W), in pixel units.
        numbers: See `shuffle_patches`.
        seed: Random seed of the shuffled patches.
    """
    names = iter(suppression_names(images.shape[1]))
    for grid in GRIDS:
        yield next(names), shuffle_patches(images, grid, numbers, seed)
    for tolerance in TOLERANCES:
        yield next(names), smooth_texture(images, tolerance)
    if images.shape[1] == 3:
        yield next(names), without_colour(images)


def suppression_names(channels: int = 3) -> list[str]:
    """Returns the names of the suppressions; only images of three channels have a colour."""
    shape = [f"shape: {grid}x{grid} patches shuffled" for grid in GRIDS]
    texture = [f"texture: smoothed up to {tolerance:g}" for tolerance in TOLERANCES]
    return [*shape, *texture, *(["colour: grey"] if channels == 3 else [])]


def shuffle_patches(
    images: Tensor, grid: int, numbers: Sequence[int] | None = None, seed: int = 0
) -> Tensor:
    """Shuffles the patches of each image, so that none stays in its place.

    Rows and columns at the end that fill no patch stay.

    Args:
        images: Images (B, C, H, W).
        grid: Patches a side, from 2 up.
        numbers: Indices (B,) of the images in their data set; None counts from 0. An order depends
            only on this index, the grid and the seed, not on the batches.
        seed: Random seed of the orders.

    Raises:
        ValueError: a grid below 2, or one with more patches than pixels.
    """
    height, width = (side // grid if grid > 1 else 0 for side in images.shape[-2:])
    if not height or not width:
        size = "x".join(map(str, images.shape[-2:]))
        raise ValueError(f"{grid} patches a side, must be from 2 to the side of the image, {size}")
    numbers = range(len(images)) if numbers is None else numbers
    orders = torch.stack([_order(grid, number, seed) for number in numbers]).to(images.device)
    cut = images[..., : grid * height, : grid * width]
    patches = cut.unflatten(-1, (grid, width)).unflatten(-3, (grid, height))  # (B, C, g, h, g, w)
    patches = patches.transpose(3, 4).flatten(2, 3)  # (B, C, g², h, w)
    taken = torch.arange(len(images), device=images.device)[:, None]
    patches = patches.transpose(1, 2)[taken, orders].transpose(1, 2)
    shuffled = images.clone()
    shuffled[..., : grid * height, : grid * width] = (
        patches.unflatten(2, (grid, grid)).transpose(3, 4).reshape(cut.shape)
    )
    return shuffled


def _order(grid: int, number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) * 1_009 + grid)
    places = torch.arange(grid * grid)
    while True:  # one order in e leaves no patch in its place
        order = torch.randperm(grid * grid, generator=generator)
        if not order.eq(places).any():
            return order


def smooth_texture(images: Tensor, tolerance: float, share: float = SMOOTHED_SHARE) -> Tensor:
    """Smooths images but keeps their edges, by a bilateral filter (Tomasi & Manduchi, ICCV 1998).

    A pixel becomes the mean of its neighbours within two deviations. They count less with
    distance, and with the root mean square difference of their channels.

    Args:
        images: Images (B, C, H, W), in pixel units.
        tolerance: Deviation in values: smaller differences are smoothed, larger ones stay.
        share: Deviation in space, as a share of the longer side.
    """
    # One by one, because a single image stays in the processor's cache.
    smoothed = [_smooth(image, tolerance, share * max(image.shape[-2:])) for image in images]
    return torch.stack(smoothed) if smoothed else images


def _smooth(image: Tensor, tolerance: float, deviation: float) -> Tensor:
    """Smooths an image (C, H, W); the deviation in space is in pixels."""
    height, width = image.shape[-2:]
    total, weights = image.clone(), torch.ones_like(image[0])  # each pixel itself
    for y, x in _half_window(min(ceil(2 * deviation), height - 1, width - 1)):
        near = exp(-(y * y + x * x) / (2 * deviation**2))
        first, last = max(-x, 0), width - max(x, 0)
        here = (..., slice(0, height - y), slice(first, last))
        there = (..., slice(y, height), slice(first + x, last + x))
        apart = (image[there] - image[here]).square_().mean(0)
        weight = apart.mul_(-0.5 / tolerance**2).exp_().mul_(near)
        for ours, other in ((here, there), (there, here)):  # a pair has one weight
            total[ours].addcmul_(image[other], weight)
            weights[ours] += weight
    return total / weights


def _half_window(radius: int) -> Iterator[tuple[int, int]]:
    """Yields one (row, column) of each pair of opposite offsets, without the origin."""
    for y in range(radius + 1):
        for x in range(-radius if y else 1, radius + 1):
            yield y, x


def without_colour(images: Tensor) -> Tensor:
    """Returns grey images of the same luminance.

    Args:
        images: Images (B, 3, H, W) of red, green and blue, in pixel units.

    Raises:
        ValueError: the images have no three channels.
    """
    return luminance(images).expand_as(images)


def luminance(images: Tensor) -> Tensor:
    """Returns the luminance (B, 1, H, W) of images (B, 3, H, W), by ITU-R BT.601.

    Raises:
        ValueError: the images have no three channels.
    """
    if images.shape[1] != 3:
        raise ValueError(f"images have {images.shape[1]} channels, must be red, green and blue")
    return (images * images.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)


def mix_frequencies(low: Tensor, high: Tensor, cutoff: float) -> Tensor:
    """Returns the low frequencies of some images plus the high ones of others.

    Args:
        low: Images (..., H, W) that give the frequencies up to the cut-off, with the mean.
        high: Images (..., H, W) that give the others.
        cutoff: Distance from the origin, as a fraction of Nyquist; the corners lie at √2.
    """
    return high + band_pass(low - high, 0.0, cutoff)


def pair_classes(classes: Sequence[Hashable], seed: int = 0) -> list[tuple[int, int]]:
    """Pairs as many images as possible, each with one of another class, at random.

    An image is in one pair at most, so pairs are independent samples.

    Args:
        classes: Class of each image.
        seed: Random seed.

    Returns:
        Pairs of indices; fewer than half of the images if a class has more than half of them.
    """
    generator = random.Random(seed)
    order = list(range(len(classes)))
    generator.shuffle(order)
    counts = Counter(classes)
    if counts:
        largest, count = counts.most_common(1)[0]
        unpaired = set([i for i in order if classes[i] == largest][len(classes) - count :])
        order = [i for i in order if i not in unpaired]
    # Sorted by class, images half the list apart differ, because no class has more than half.
    first_seen = {name: place for place, name in enumerate(counts)}
    order.sort(key=lambda i: first_seen[classes[i]])
    half = len(order) // 2
    pairs = [(order[i], order[i + half]) for i in range(half)]
    for _ in range(10 * half):  # swaps, so that any two classes may meet
        i, j = generator.randrange(half), generator.randrange(half)
        (a, b), (c, d) = pairs[i], generator.choice([pairs[j], pairs[j][::-1]])
        if i != j and classes[a] != classes[d] and classes[c] != classes[b]:
            pairs[i], pairs[j] = (a, d), (c, b)
    return pairs


def bootstrap(
    samples: NDArray[np.generic],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Returns the percentile bootstrap interval of a function of means, over samples.

    Resamples are drawn with a fixed seed. What belongs together is one row, so that it is drawn
    together: paired.

    Args:
        samples: Values (N, K) of N independent samples.
        statistic: Function from means (R, K) of resamples to their values (R,); resamples with a
            value that is not finite do not count.
        level: Share of resamples within the interval.

    Returns:
        The interval; None if no value is finite.
    """
    rows, counts = np.unique(samples.astype(np.float64), axis=0, return_counts=True)
    # Equal samples are drawn together, which gives the same distribution in less memory.
    drawn = np.random.default_rng(0).multinomial(len(samples), counts / counts.sum(), RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(drawn @ rows / len(samples))
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
