"""Preprocesses images for a network, bit for bit like timm's evaluation transform."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.images import MAX_PIXELS, ImageError

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

MAX_SIZE = 8192
"""The largest side that a checkpoint or an exported file may ask for."""


def short_side(size: int, crop_pct: float) -> int:
    """Returns the shorter side, in pixels, of resized images before the crop."""
    return int(size / crop_pct)


def check_shape(image: Image.Image, short: int) -> None:
    """Refuses an image that is too elongated: resizing it would need too many pixels.

    Training, evaluation and prediction use this same rule.

    Args:
        image: The decoded image.
        short: Target of its shorter side, in pixels.

    Raises:
        ImageError: the image is too elongated; the caller adds its name.
    """
    low, high = sorted(image.size)
    if short * short * high > MAX_PIXELS * low:
        raise ImageError(
            f"{image.width}x{image.height} pixels are too elongated to be resized to {short}"
        )


@contextmanager
def refuse_damaged(path: str | Path) -> Iterator[None]:
    """Turns errors in the values of a preprocessing into a UserError that names `path`."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path}: the preprocessing is damaged (no {error})") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: the preprocessing is damaged ({error})") from error


def standardize(
    pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Standardizes 8-bit pixels (H, W, 3) to (3, H, W), float32."""
    scaled = pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(255)
    center, scale = (np.array(v, dtype=np.float32)[:, None, None] for v in (mean, std))
    return np.ascontiguousarray((scaled - center) / scale)


@dataclass(frozen=True)
class Preprocessing:
    """Resizes the shorter side to `size / crop_pct`, crops the centre and standardizes.

    Attributes:
        size: Side of the square input, in pixels.
        crop_pct: Fraction of the shorter side that the crop covers.
        interpolation: Name of Pillow's filter, in lower case.
        mean: Mean of each channel, for values from 0 to 1.
        std: Standard deviation of each channel, for values from 0 to 1.
    """

    size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def parse(cls, values: Mapping[str, Any], path: str | Path) -> Self:
        """Reads the values that checkpoints and exported models carry.

        Raises:
            UserError: the values are damaged; the message names `path`.
        """
        with refuse_damaged(path):
            *_, height, width = values["input_size"]
            parsed = cls(
                int(height),
                float(values["crop_pct"]),
                str(values["interpolation"]),
                tuple(map(float, values["mean"])),
                tuple(map(float, values["std"])),
            )
            parsed._check(width, values.get("crop_mode", "center"))
        return parsed

    def _check(self, width: int, crop_mode: str) -> None:
        """Raises ValueError for values that cannot be used."""
        if self.size != width or not 0 < self.size <= MAX_SIZE:
            raise ValueError(f"images of {self.size}x{width}, must be square, up to {MAX_SIZE}")
        if not 0.01 <= self.crop_pct <= 1:
            raise ValueError(f"crop_pct is {self.crop_pct}, must be from 0.01 to 1")
        if crop_mode != "center":
            raise ValueError(f"crop_mode is {crop_mode!r}, only 'center' is known")
        if self.interpolation not in _FILTERS:
            known = ", ".join(_FILTERS)
            raise ValueError(f"interpolation is {self.interpolation!r}, allowed: {known}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise ValueError("mean and std need three numbers, std none that is 0")

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Maps an RGB image to (3, size, size), float32.

        Raises:
            ImageError: See `check_shape`.
        """
        return self.standardize(self.crop(image))

    def crop(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resizes and crops an RGB image to 8-bit pixels (size, size, 3).

        Raises:
            ImageError: See `check_shape`.
        """
        short = short_side(self.size, self.crop_pct)
        check_shape(image, short)
        return np.asarray(_center_crop(_resize(image, short, self.filter), self.size))

    def standardize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Standardizes 8-bit pixels (H, W, 3) to (3, H, W), float32."""
        return standardize(pixels, self.mean, self.std)

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's resampling filter."""
        return _FILTERS[self.interpolation]


def _resize(image: Image.Image, short: int, how: Image.Resampling) -> Image.Image:
    """Resizes the shorter side to `short`; the longer one is rounded down, as torchvision does."""
    low, high = sorted(image.size)
    long = int(short * high / low)
    size = (short, long) if image.width <= image.height else (long, short)
    return image if image.size == size else image.resize(size, how)


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    left, top = (round((side - size) / 2) for side in image.size)
    return image.crop((left, top, left + size, top + size))
