"""How much an answer hangs on each frequency of the image: waves are added, bands taken away.

Images are in pixel units here, values from 0 to 1, before they are standardized; nothing is
clipped, so that what is added or left is exactly the frequency that is told.

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
"""Of `band_variants`, as fractions of Nyquist: denser where images have most of their energy."""


@dataclass(frozen=True)
class Answers:
    """What a model says of variants of images.

    Attributes:
        change: How far its output moved, the L2 norm over that of its output for the images
            themselves: (B, V).
        wrong: 1 where the likeliest class is not the target, else 0: (B, V). None where the output
            is no (B, classes).
        clean_wrong: The same of the images themselves: (B,).
    """

    change: Tensor
    wrong: Tensor | None
    clean_wrong: Tensor | None


@torch.no_grad()
def compare_answers(
    model: Model, images: Tensor, variants: Iterable[Tensor], targets: Tensor | None = None
) -> Answers:
    """Asks a model for images and for variants of them.

    Args:
        model: Takes images in pixel units; its output may be logits (B, classes) or anything else.
        images: (B, C, H, W).
        variants: Of all images, one after the other: (B, C, H, W) each.
        targets: The right classes (B,); None takes the model's own answers for the images.

    Raises:
        ValueError: the output is no tensor.
    """
    clean = model(images)
    if not isinstance(clean, Tensor):
        raise ValueError(f"its output is a {type(clean).__name__}, must be a tensor")
    size = clean.flatten(1).norm(dim=1).clamp(min=torch.finfo(clean.dtype).tiny)
    change, classes = [], []
    for variant in variants:
        out = model(variant)
        change.append((out - clean).flatten(1).norm(dim=1) / size)
        classes.append(out.argmax(1))  # of an output that is no logits, not looked at
    if clean.ndim != 2:
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
        columns: Horizontal ones: (S,).
        pairs: (u, v) in bins, one of each conjugate pair: a real wave has both.
        index: Where the frequency of a row and a column stands in `pairs`: (R, S).
    """

    rows: list[int]
    columns: list[int]
    pairs: list[tuple[int, int]]
    index: NDArray[np.int64]


def frequency_grid(height: int, width: int, count: int) -> FrequencyGrid:
    """Spreads frequencies over the spectrum of an image.

    Args:
        height: H, in pixels.
        width: W.
        count: Frequencies a side, odd, so that the origin is among them; all there are if more.

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
    """Yields images with a wave added, one frequency after the other (Yin et al., NeurIPS 2019).

    Args:
        images: (B, C, H, W), in pixel units.
        pairs: Frequencies (u, v), in bins.
        epsilon: Of `perturb`.
        numbers: Of the images in their data set, (B,): a sign depends on them, on the frequency's
            place and on the seed alone, however the images come in batches. None counts from 0.
        seed: Of the signs.
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
    """Adds a wave of norm ε to each image, its sign random for each image and channel.

    `x̃ = x + s ε U_uv` (Yin et al., NeurIPS 2019). Add it before the images are standardized.

    Args:
        images: (B, C, H, W), in pixel units.
        u: Row frequency, in bins.
        v: Column frequency, in bins.
        epsilon: L2 norm of what is added to a channel, in pixel units.
        generator: Of the signs.
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
        v: Column frequency.
        height: In pixels.
        width: In pixels.
    """
    rows = torch.arange(height, dtype=torch.float64)[:, None] * (u / height)
    columns = torch.arange(width, dtype=torch.float64)[None, :] * (v / width)
    image = (2 * torch.pi * (rows + columns)).cos()
    return image / image.norm()


def band_variants(images: Tensor, cutoffs: Sequence[float] = CUTOFFS) -> Iterator[Tensor]:
    """Yields images low-passed at each cut-off, then high-passed at each.

    A low-pass keeps the frequencies up to the cut-off, a high-pass those from it on. Both keep the
    mean of every channel: without it the answer would tell of brightness.

    Args:
        images: (B, C, H, W), in pixel units.
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
        images: (..., H, W), real.
        low: Lower edge, as a fraction of Nyquist; the origin is kept where it is 0.
        high: Upper edge, included; the corners of the spectrum lie at √2.

    Returns:
        The shape and type of the images.
    """
    height, width = images.shape[-2:]
    u = torch.fft.fftfreq(height, dtype=torch.float64, device=images.device) * 2
    v = torch.fft.rfftfreq(width, dtype=torch.float64, device=images.device) * 2
    distance = torch.hypot(u[:, None], v[None, :])
    # Whether a bin on an edge, such as the corner at √2, is inside must not hang on rounding.
    kept = (distance > low - 1e-9) & (distance < high + 1e-9)
    spectrum = torch.fft.rfft2(images.float()) * kept
    return torch.fft.irfft2(spectrum, s=(height, width)).to(images.dtype)
