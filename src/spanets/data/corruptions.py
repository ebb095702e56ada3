"""The 15 kinds of corruption of ImageNet-C, at 5 severities, for images of any size.

Kinds and strengths follow Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR 2019 (https://arxiv.org/abs/1903.12261). This is a new
implementation, whose error rates cannot be compared with those on ImageNet-C. It differs in:

- Lengths are in pixels of an image whose shorter side is 224, and are scaled to the image.
- Fog is noise whose amplitude falls as a power of the frequency, in place of a plasma fractal;
  frost is drawn from the zero lines of such noise, thicker at the border, in place of photographs.
- Glass displaces each pixel at random, at once, in place of swaps one after the other.
- Snow, fog and the elastic transform have other strengths, which always grow with the severity.
  Those of the published elastic transform, for example, do not.

Public functions take images (H, W, 3) in uint8; private ones take floats from 0 to 1. Corrupt an
image after resizing it to the network's input size, because resizing averages noise away.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from spanets_runtime.errors import UsageError, nearest

Pixels = NDArray[np.floating[Any]]

SEVERITIES = (1, 2, 3, 4, 5)

# Strengths are in pixels of an image with this shorter side.
_SIDE = 224


def corrupt(image: NDArray[np.uint8], kind: str, severity: int, seed: int = 0) -> NDArray[np.uint8]:
    """Corrupts an image; the same arguments give the same pixels.

    Args:
        image: (H, W, 3).
        kind: One of `KINDS`.
        severity: 1 to 5.
        seed: Seed of the random draws, zero or more; give each image another one.

    Returns:
        (H, W, 3).

    Raises:
        UsageError: an unknown kind or severity.
        ValueError: the image has another shape or type.
    """
    if kind not in _CORRUPTIONS:
        raise UsageError(
            f"unknown corruption {kind!r}{nearest(kind, KINDS)} (known: {', '.join(KINDS)})"
        )
    if severity not in SEVERITIES:
        raise UsageError(f"severity is {severity}, allowed: 1 to 5")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.shape} of {image.dtype}, must be (H, W, 3) of uint8")
    # The seed includes the kind, so that no two kinds use the same draws.
    random = np.random.default_rng((seed, KINDS.index(kind)))
    x = image.astype(np.float32) / 255
    return _to_bytes(_CORRUPTIONS[kind](x, severity - 1, random))


# ---- noise


def _gaussian_noise(x: Pixels, level: int, random: Generator) -> Pixels:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
    return x + deviation * _normal(random, x.shape)


def _shot_noise(x: Pixels, level: int, random: Generator) -> Pixels:
    photons = (60, 25, 12, 5, 3)[level]  # collected by a white pixel
    return (random.poisson(x * photons) / photons).astype(np.float32)


def _impulse_noise(x: Pixels, level: int, random: Generator) -> Pixels:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    drawn = random.random(x.shape)
    return np.where(drawn < share / 2, 0, np.where(drawn < share, 1, x)).astype(np.float32)


# ---- blur


def _defocus_blur(x: Pixels, level: int, random: Generator) -> Pixels:
    radius = (3, 4, 6, 8, 10)[level] * _scale(x)
    grid = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    distance = np.hypot(grid[:, None], grid)
    # A disc with an edge one pixel wide, to avoid aliasing.
    return _convolve(x, (radius + 0.5 - distance).clip(0, 1))


def _glass_blur(x: Pixels, level: int, random: Generator) -> Pixels:
    deviation, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[level]
    x = _smooth(x, deviation * _scale(x))
    for _ in range(times):
        x = _displace(x, (reach * _scale(x) * random.uniform(-1, 1, (2, *x.shape[:2]))))
    return _smooth(x, deviation * _scale(x))


def _motion_blur(x: Pixels, level: int, random: Generator) -> Pixels:
    length, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
    return _move(x, length, deviation, random.uniform(-45, 45))


def _zoom_blur(x: Pixels, level: int, random: Generator) -> Pixels:
    largest, step = ((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.25, 0.02), (1.30, 0.03))[level]
    zooms = np.arange(1, largest + step / 2, step)
    return np.mean([_zoom(x, float(zoom)) for zoom in zooms], axis=0, dtype=np.float32)


# ---- weather


def _snow(x: Pixels, level: int, random: Generator) -> Pixels:
    cover, flake, whitening = (
        (0.02, 1.2, 0.2),
        (0.035, 1.4, 0.3),
        (0.05, 1.6, 0.4),
        (0.07, 1.8, 0.5),
        (0.1, 2.0, 0.6),
    )[level]
    flakes = _smooth(_normal(random, (*x.shape[:2], 1)), flake * _scale(x))
    flakes = (flakes > np.quantile(flakes, 1 - cover)).astype(np.float32)
    falling = _move(flakes, 12, 3 + level, random.uniform(-135, -45))
    gray = x.mean(2, keepdims=True)
    whitened = (1 - whitening) * x + whitening * np.maximum(x, 0.5 + 0.5 * gray)
    return whitened + 1.2 * falling


def _frost(x: Pixels, level: int, random: Generator) -> Pixels:
    kept, laid = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[level]
    # Crystals are the thin lines where noise changes its sign, thicker near the border.
    lines = [np.exp(-6 * np.abs(_cloud(random, x.shape, slope))) for slope in (1.0, 1.4, 1.8)]
    height, width = x.shape[:2]
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    border = np.maximum(np.abs(rows), np.abs(columns))[..., None]
    thickness = (0.35 + 0.65 * border**2) * np.mean(lines, axis=0) * 2.2
    colour = np.array([0.9, 0.95, 1.0])
    return (kept * x + laid * thickness.clip(0, 1) * colour).astype(np.float32)


def _fog(x: Pixels, level: int, random: Generator) -> Pixels:
    density = (1.5, 2.0, 2.5, 3.0, 3.5)[level]
    cloud = _cloud(random, x.shape, 1.7)
    cloud = (cloud - cloud.min()) / max(cloud.max() - cloud.min(), 1e-6)
    # The brightest pixel keeps its value where the fog is thickest.
    return (x + density * cloud) * (x.max() / (x.max() + density))


def _brightness(x: Pixels, level: int, random: Generator) -> Pixels:
    added = (0.1, 0.2, 0.3, 0.4, 0.5)[level]
    value = x.max(2, keepdims=True)  # of hue, saturation, value
    brighter = (value + added).clip(0, 1)
    scaled = x * brighter / np.maximum(value, 1e-6)
    return np.where(value > 0, scaled, np.float32(added))


# ---- digital


def _contrast(x: Pixels, level: int, random: Generator) -> Pixels:
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[level]
    mean = x.mean((0, 1))
    return mean + kept * (x - mean)


def _elastic_transform(x: Pixels, level: int, random: Generator) -> Pixels:
    amplitude = (1, 1.75, 2.5, 3.25, 4)[level] * _scale(x)
    offsets = _smooth(_normal(random, (*x.shape[:2], 2)), 6 * _scale(x))
    offsets *= amplitude / offsets.std()
    return _displace(x, offsets.transpose(2, 0, 1))


def _pixelate(x: Pixels, level: int, random: Generator) -> Pixels:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    image, size = _to_image(x), (x.shape[1], x.shape[0])
    small = tuple(max(1, round(share * side)) for side in size)
    coarse = image.resize(small, Image.Resampling.BOX)
    return _to_pixels(coarse.resize(size, Image.Resampling.NEAREST))


def _jpeg_compression(x: Pixels, level: int, random: Generator) -> Pixels:
    buffer = io.BytesIO()
    _to_image(x).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[level])
    return _to_pixels(Image.open(buffer).convert("RGB"))


# ---- building blocks


def _scale(x: Pixels) -> float:
    """Returns the factor from pixels at a shorter side of 224 to pixels of this image."""
    return min(x.shape[:2]) / _SIDE


def _normal(random: Generator, shape: tuple[int, ...]) -> Pixels:
    return random.standard_normal(shape, dtype=np.float32)


def _to_tensor(x: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]  # (1, C, H, W)


def _to_array(x: torch.Tensor) -> Pixels:
    return x[0].numpy().transpose(1, 2, 0)  # (H, W, C)


def _to_bytes(x: Pixels) -> NDArray[np.uint8]:
    return np.rint(x.clip(0, 1) * 255).astype(np.uint8)


def _to_image(x: Pixels) -> Image.Image:
    return Image.fromarray(_to_bytes(x))


def _to_pixels(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float32) / 255


def _convolve(x: Pixels, kernel: NDArray[Any]) -> Pixels:
    """Convolves with an odd kernel (K, L), which is normalised; the border is repeated."""
    height, width = kernel.shape
    padding = (width // 2, width // 2, height // 2, height // 2)
    weight = torch.from_numpy((kernel / kernel.sum()).astype(np.float32))
    weight = weight.expand(x.shape[2], 1, -1, -1)  # one per channel
    padded = F.pad(_to_tensor(x), padding, mode="replicate")
    return _to_array(F.conv2d(padded, weight, groups=x.shape[2]))


def _smooth(x: Pixels, deviation: float) -> Pixels:
    """Blurs by a Gaussian cut off at four deviations, or where reflection runs out of pixels."""
    reach = min(math.ceil(4 * deviation), min(x.shape[:2]) - 1)
    if reach < 1:
        return x
    return _to_array(gaussian_blur(_to_tensor(x), [2 * reach + 1] * 2, [deviation] * 2))


def _move(x: Pixels, length: float, deviation: float, degrees: float) -> Pixels:
    """Blurs along a line, by a Gaussian cut off at `length` on either side."""
    scale = _scale(x)
    reach = math.ceil(length * scale)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    angle = math.radians(degrees)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    line = np.exp(-0.5 * (along / (deviation * scale)) ** 2) * (1 - np.abs(across)).clip(0)
    return _convolve(x, np.where(np.abs(along) <= reach, line, 0))


def _displace(x: Pixels, offsets: NDArray[Any]) -> Pixels:
    """Moves pixels: each is read at an offset from its place, with bilinear interpolation.

    Args:
        x: (H, W, C).
        offsets: (2, H, W), down and right, in pixels.
    """
    height, width = x.shape[:2]
    rows, columns = np.mgrid[:height, :width] + offsets
    # grid_sample's -1 and 1 are the outer edges of the border's pixels.
    grid = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], axis=-1)
    where = torch.from_numpy(grid.astype(np.float32))[None]  # (1, H, W, 2)
    return _to_array(
        F.grid_sample(_to_tensor(x), where, padding_mode="reflection", align_corners=False)
    )


def _zoom(x: Pixels, factor: float) -> Pixels:
    """Enlarges about the centre, and crops to the original size."""
    height, width = x.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    shrink = 1 / factor - 1
    centre = ((height - 1) / 2, (width - 1) / 2)
    return _displace(x, np.stack([(rows - centre[0]) * shrink, (columns - centre[1]) * shrink]))


def _cloud(random: Generator, shape: tuple[int, ...], slope: float) -> Pixels:
    """Draws noise (H, W, 1) of variance 1 whose amplitude falls as frequency ** -slope."""
    height, width = shape[:2]
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)  # cycles per pixel
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # sets the mean to 0
    spectrum = np.fft.rfft2(_normal(random, (height, width))) * frequency**-slope
    cloud = np.fft.irfft2(spectrum, s=(height, width))
    return (cloud / max(cloud.std(), 1e-6))[..., None].astype(np.float32)


_CORRUPTIONS: dict[str, Callable[[Pixels, int, Generator], Pixels]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}

KINDS = tuple(_CORRUPTIONS)
"""The names, in the order of ImageNet-C."""
