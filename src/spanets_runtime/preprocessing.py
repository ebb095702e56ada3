"""Preprocesses images for a network, bit for bit like timm's evaluation transform."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.arrays import PixelFormat, resize_channels
from spanets_runtime.bands import refuse_other_bands
from spanets_runtime.errors import UserError
from spanets_runtime.images import MAX_PIXELS, ImageError, digest_image, load_image

Pixels = Image.Image | NDArray[Any]
"""A decoded image, in 8-bit RGB or as an array (H, W, C) of the stored numbers."""

T = TypeVar("T")

FILTERS = {
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


def size_of(image: Pixels) -> tuple[int, int]:
    """Returns width and height of a decoded image."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def cut(image: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    """Returns the part of a decoded image in a box (left, top, right, bottom) of pixels."""
    if isinstance(image, Image.Image):
        return image.crop(box)
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def reader_of(transform: Any) -> Callable[[Any], Any]:
    """Returns the function that decodes images for a transform: its own, or `load_image`."""
    return getattr(transform, "read", load_image)


def give_rows(predict: Callable[[Any], Any], transform: Any) -> Callable[[Any], Any]:
    """Returns a function that predicts every image; it refuses files of further bands.

    Args:
        predict: Predicts images, without files of further bands.
        transform: The model's preprocessing.
    """
    pixels = getattr(transform, "pixels", None)
    if pixels is None or not pixels.bands:
        return predict
    return lambda images: predict(refuse_other_bands(images, pixels.bands))


def check_shape(image: Pixels, short: int) -> None:
    """Refuses an image that is too elongated: resizing it would need too many pixels.

    Training, evaluation and prediction use this same rule.

    Args:
        image: The decoded image.
        short: Target of its shorter side, in pixels.

    Raises:
        ImageError: the image is too elongated; the caller adds its name.
    """
    width, height = size_of(image)
    low, high = sorted((width, height))
    if short * short * high > MAX_PIXELS * low:
        raise ImageError(f"{width}x{height} pixels are too elongated to be resized to {short}")


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
    pixels: NDArray[Any], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Standardizes pixels (H, W, C) to (C, H, W), float32; 8-bit ones are scaled to 0..1 first."""
    scaled = pixels.astype(np.float32).transpose(2, 0, 1)
    if pixels.dtype == np.uint8:
        scaled = scaled / np.float32(255)
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
        pixels: How images of other channels or depths are read; None is 8-bit RGB.
    """

    size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: PixelFormat | None = None

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
                PixelFormat.parse(values),
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
        if self.interpolation not in FILTERS:
            known = ", ".join(FILTERS)
            raise ValueError(f"interpolation is {self.interpolation!r}, allowed: {known}")
        count = self.channels
        if len(self.mean) != count or len(self.std) != count or not all(self.std):
            wanted = "three" if count == 3 else count
            raise ValueError(f"mean and std need {wanted} numbers, std none that is 0")

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return 3 if self.pixels is None else self.pixels.channels

    def read(self, source: Any) -> Pixels:
        """Decodes an image into what this transform takes.

        Raises:
            ImageError: see `load_image` and `PixelFormat.read`.
        """
        return load_image(source) if self.pixels is None else self.pixels.read(source)

    def view(self, source: Any) -> Image.Image:
        """Decodes an image into a picture for people.

        Raises:
            ImageError: see `read`.
        """
        return load_image(source) if self.pixels is None else self.pixels.view(source)

    def digest(self, source: Any, size: int = 16) -> bytes:
        """Returns the BLAKE2 digest of an image's encoded bytes.

        Raises:
            ImageError: see `digest_image` and `PixelFormat.digest`.
        """
        if self.pixels is None:
            return digest_image(source, size)
        return self.pixels.digest(source, size)

    def choose(self, images: Iterable[T]) -> Iterator[T]:
        """Yields the images among files, of which those of further bands are a part."""
        return iter(images) if self.pixels is None else self.pixels.choose(images)

    def __call__(self, image: Pixels) -> NDArray[np.float32]:
        """Maps a decoded image to (C, size, size), float32; see `read`.

        Raises:
            ImageError: See `check_shape`.
        """
        return self.standardize(self.crop(image))

    def crop(self, image: Pixels) -> NDArray[Any]:
        """Resizes and crops an image to (size, size, C): 8-bit RGB, or scaled float32.

        Raises:
            ImageError: See `check_shape`.
        """
        short = short_side(self.size, self.crop_pct)
        check_shape(image, short)
        if isinstance(image, Image.Image):
            return np.asarray(_center_crop(_resize(image, short, self.filter), self.size))
        assert self.pixels is not None
        size = _resized(size_of(image), short)
        left, top = _corner(size, self.size)
        window = (left, top, left + self.size, top + self.size)
        return self.pixels.to_unit(resize_channels(image, size, self.filter, window), image.dtype)

    def standardize(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Standardizes what `crop` returns, (H, W, C), to (C, H, W), float32."""
        return standardize(pixels, self.mean, self.std)

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's resampling filter."""
        return FILTERS[self.interpolation]


def _resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Returns the size with this shorter side; the longer one is rounded down, as torchvision's."""
    low, high = sorted(size)
    long = int(short * high / low)
    return (short, long) if size[0] <= size[1] else (long, short)


def _resize(image: Image.Image, short: int, how: Image.Resampling) -> Image.Image:
    size = _resized(image.size, short)
    return image if image.size == size else image.resize(size, how)


def _corner(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Returns left and top of the centre crop."""
    left, top = (round((length - side) / 2) for length in size)
    return left, top


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    left, top = _corner(image.size, size)
    return image.crop((left, top, left + size, top + size))
