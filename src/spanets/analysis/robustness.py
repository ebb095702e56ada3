"""Measures a model's sensitivity to image frequencies: adds sinusoids, or removes bands.

Images are in pixel units (0 to 1), before standardization. Nothing is clipped, because clipping
would add other frequencies.

Shape legend: `B` images, `C` channels, `H W` image size, `V` variants of each image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Model = Callable[[Tensor], Tensor]

CUTOFFS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, sqrt(2))
"""Cut-offs of `band_variants`, as fractions of Nyquist; denser where images have most energy."""


@dataclass(frozen=True)
class Answers:
    """A model's answers to variants of images, compared with those to the original images.

    Attributes:
        change: L2 norm of the output's change, relative to the norm of the original output: (B, V).
        wrong: 1 where the most likely class is not the target, else 0: (B, V). None if the output
            is not (B, classes) with two classes or more.
        clean_wrong: The same for the original images: (B,).
    """

    change: Tensor
    wrong: Tensor | None
    clean_wrong: Tensor | None


@torch.no_grad()
def compare_answers(
    model: Model, images: Tensor, variants: Iterable[Tensor], targets: Tensor | None = None
) -> Answers:
    """Runs a model on images and on variants of them, and compares the outputs.

    Args:
        model: Function of images in pixel units; it may return logits (B, classes) or any tensor.
        images: Images (B, C, H, W).
        variants: Variants of all images, (B, C, H, W) each.
        targets: True classes (B,); None means the model's predictions on the original images.

    Raises:
        ValueError: the output is not a tensor.
    """
    clean = model(images)
    if not isinstance(clean, Tensor):
        raise ValueError(f"its output is a {type(clean).__name__}, must be a tensor")
    size = clean.flatten(1).norm(dim=1).clamp(min=torch.finfo(clean.dtype).tiny)
    change, classes = [], []
    for variant in variants:
        out = model(variant)
        change.append((out - clean).flatten(1).norm(dim=1) / size)
        classes.append(out.argmax(1))  # unused if the output is not logits
    if clean.ndim != 2 or clean.shape[1] < 2:  # the largest of one number is always the first
        return Answers(torch.stack(change, 1), None, None)
    own = clean.argmax(1)
    wanted = own if targets is None else targets
    wrong = torch.stack(classes, 1).ne(wanted[:, None])
    return Answers(torch.stack(change, 1), wrong.float(), own.ne(wanted).float())


@dataclass(frozen=True)
class FrequencyGrid:
    """Evenly spread frequencies of an image, from minus to plus Nyquist.

    Attributes:
        rows: Vertical frequencies, in bins: (R,).
        columns: Horizontal frequencies, in bins: (S,).
        pairs: One (u, v) of each conjugate pair, in bins; a real sinusoid has both.
        index: Index into `pairs` for each row and column: (R, S).
    """

    rows: list[int]
    columns: list[int]
    pairs: list[tuple[int, int]]
    index: NDArray[np.int64]


def frequency_grid(height: int, width: int, count: int) -> FrequencyGrid:
    """Spreads frequencies over the spectrum of an image.

    Args:
        height: Image height, in pixels.
        width: Image width, in pixels.
        count: Frequencies per side, odd to include the origin; at most all that exist.

    Raises:
        ValueError: the count is even or below 3.
    """
    if count < 3 or count % 2 == 0:
        raise ValueError(f"the number of frequencies a side is {count}, must be odd, from 3 up")
    rows, columns = _spread(height, count), _spread(width, count)
    pairs: dict[tuple[int, int], int] = {}
    index = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for i, u in enumerate(rows):
        for j, v in enumerate(columns):
            pair = min((u % height, v % width), (-u % height, -v % width))
            index[i, j] = pairs.setdefault(pair, len(pairs))
    return FrequencyGrid(rows, columns, list(pairs), index)


def _spread(side: int, count: int) -> list[int]:
    steps = np.linspace(-(side // 2), side // 2, count)
    return sorted({round(step) for step in steps})


def wave_variants(
    images: Tensor,
    pairs: Iterable[tuple[int, int]],
    epsilon: float,
    numbers: Sequence[int] | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yields images with a sinusoid added, for each frequency (Yin et al., NeurIPS 2019).

    Args:
        images: Images (B, C, H, W), in pixel units.
        pairs: Frequencies (u, v), in bins.
        epsilon: See `perturb`.
        numbers: Indices (B,) of the images in their data set; None counts from 0. A sign depends
            only on this index, the frequency's position and the seed, not on the batches.
        seed: Random seed of the signs.
    """
    generators = [
        torch.Generator().manual_seed(seed * 1_000_003 + number)
        for number in (range(len(images)) if numbers is None else numbers)
    ]
    for u, v in pairs:
        draws = [torch.randint(0, 2, (images.shape[1],), generator=g) for g in generators]
        yield _add_wave(images, u, v, epsilon, torch.stack(draws) * 2 - 1)


def perturb(
    images: Tensor, u: int, v: int, epsilon: float, generator: torch.Generator | None = None
) -> Tensor:
    """Adds a sinusoid of norm ε to each image, with a random sign for each image and channel.

    `x̃ = x + s ε U_uv` (Yin et al., NeurIPS 2019). Add it before the images are standardized.

    Args:
        images: Images (B, C, H, W), in pixel units.
        u: Row frequency, in bins.
        v: Column frequency, in bins.
        epsilon: L2 norm of the sinusoid added to a channel, in pixel units.
        generator: Random generator of the signs.
    """
    signs = torch.randint(0, 2, images.shape[:2], generator=generator) * 2 - 1
    return _add_wave(images, u, v, epsilon, signs)


def _add_wave(images: Tensor, u: int, v: int, epsilon: float, signs: Tensor) -> Tensor:
    wave = fourier_basis(u, v, *images.shape[-2:]).to(images)
    return images + epsilon * signs.to(images)[:, :, None, None] * wave


def fourier_basis(u: int, v: int, height: int, width: int) -> Tensor:
    """Returns the real, unit-norm image of frequency (u, v) of Yin et al., 2019: (H, W).

    Args:
        u: Row frequency, in bins from the origin; may be negative.
        v: Column frequency, in bins from the origin; may be negative.
        height: Image height, in pixels.
        width: Image width, in pixels.
    """
    rows = torch.arange(height, dtype=torch.float64)[:, None] * (u / height)
    columns = torch.arange(width, dtype=torch.float64)[None, :] * (v / width)
    image = (2 * torch.pi * (rows + columns)).cos()
    return image / image.norm()


def band_variants(images: Tensor, cutoffs: Sequence[float] = CUTOFFS) -> Iterator[Tensor]:
    """Yields images low-passed at each cut-off, then high-passed at each.

    A low-pass keeps frequencies up to the cut-off, a high-pass those from the cut-off up. Both keep
    the mean of every channel, so that the result does not depend on brightness.

    Args:
        images: Images (B, C, H, W), in pixel units.
        cutoffs: Distances from the origin, as fractions of Nyquist; the corners lie at √2.
    """
    for cutoff in cutoffs:
        yield band_pass(images, 0.0, cutoff)
    mean = images.mean((-2, -1), keepdim=True)
    for cutoff in cutoffs:
        yield band_pass(images - mean, cutoff, 2.0) + mean


def band_pass(images: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Keeps the frequencies whose distance from the origin lies in a band.

    Args:
        images: Real images (..., H, W).
        low: Lower edge, as a fraction of Nyquist; 0 keeps the origin.
        high: Upper edge (included), as a fraction of Nyquist; the spectrum's corners are at √2.

    Returns:
        Filtered images, with the shape and dtype of the input.
    """
    height, width = images.shape[-2:]
    u = torch.fft.fftfreq(height, dtype=torch.float64, device=images.device) * 2
    v = torch.fft.rfftfreq(width, dtype=torch.float64, device=images.device) * 2
    distance = torch.hypot(u[:, None], v[None, :])
    # The tolerance keeps bins on an edge, such as the corner at √2, whatever the rounding.
    kept = (distance > low - 1e-9) & (distance < high + 1e-9)
    spectrum = torch.fft.rfft2(images.float()) * kept
    return torch.fft.irfft2(spectrum, s=(height, width)).to(images.dtype)
