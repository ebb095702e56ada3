"""Images of 1 to 16 channels and any depth, for networks that take more than 8-bit RGB.

An image is an array (H, W, C) of the stored numbers; `PixelFormat.to_unit` alone scales them.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.bands import check_names, find_band, without_other_bands
from spanets_runtime.decoding.decoded import MAX_CHANNELS, MAX_PIXELS
from spanets_runtime.decoding.stored import identify_stored, read_stored
from spanets_runtime.images import (
    ImageError,
    StoredImage,
    digest_image,
    opened,
    quiet_decoder,
)

Array = NDArray[Any]
Source = str | os.PathLike[str] | StoredImage
T = TypeVar("T")

PIXEL_KEYS = ("channels", "value_range", "bands")
"""Keys of a preprocessing that `PixelFormat` reads."""

# Percentiles of a channel that a picture shows as black and white.
_DARK, _BRIGHT = 2, 98


@dataclass(frozen=True)
class PixelFormat:
    """How images are read that keep their stored numbers.

    Attributes:
        channels: Number of channels, which every image must have.
        value_range: Numbers that become 0 and 1; others are not clipped. None means 0 and the
            type's largest number for 8 and 16 bits without a sign; floats are not scaled.
        bands: Names of the channels, if each is a file of its own; see `spanets_runtime.bands`.
    """

    channels: int
    value_range: tuple[float, float] | None = None
    bands: tuple[str, ...] = ()

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self | None:
        """Reads the values of a preprocessing; returns None if images are 8-bit RGB.

        Raises:
            ValueError: the values cannot be used.
            TypeError: they are of another type.
        """
        if (channels := values.get("channels")) is None:
            return None
        given, bands = values.get("value_range"), tuple(map(str, values.get("bands") or ()))
        low, high = (0.0, 1.0) if given is None else map(float, given)
        if not 1 <= int(channels) <= MAX_CHANNELS:
            raise ValueError(f"channels is {channels}, must be 1 to {MAX_CHANNELS}")
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(f"value_range is [{low}, {high}], the first must be the smaller")
        check_names(bands)
        if bands and len(bands) != channels:
            raise ValueError(f"{len(bands)} bands, and channels is {channels}")
        return cls(int(channels), None if given is None else (low, high), bands)

    def read(self, source: Source, max_pixels: int = MAX_PIXELS) -> Array:
        """Decodes the stored numbers of an image, upright: (H, W, channels).

        Args:
            source: Path of a file, of the first band's if there are bands; or a stored image.
            max_pixels: Limit of width times height.

        Raises:
            ImageError: the image cannot be read, has another number of channels, lacks a band, or
                is of a type without a range.
        """
        if not self.bands:
            return self._read_file(source, self.channels, max_pixels)
        if not isinstance(source, str | os.PathLike):
            raise ImageError(f"{source}: bands are read from files, not from shards or tables")
        paths = self.files_of(source)
        parts = [self._read_file(path, 1, max_pixels) for path in paths]
        for path, part in zip(paths, parts, strict=True):
            if part.shape != parts[0].shape or part.dtype != parts[0].dtype:
                raise ImageError(
                    f"{path}: is {_describe(part)}, and {os.path.basename(str(paths[0]))} "
                    f"{_describe(parts[0])}; save the bands with one size and type"
                )
        return np.concatenate(parts, axis=2)

    def _read_file(self, source: Source, channels: int, max_pixels: int) -> Array:
        array = read_array(source, channels, max_pixels)
        if self.value_range is None and not _has_range(array.dtype):
            raise ImageError(
                f"{source}: numbers of type {array.dtype} have no fixed range; set "
                "data.value_range, the numbers that become 0 and 1"
            )
        return array

    def to_unit(self, pixels: Array, dtype: np.dtype[Any]) -> NDArray[np.float32]:
        """Scales numbers to what networks and statistics use.

        Args:
            pixels: Stored numbers, or resized ones as floats, of any shape.
            dtype: The type that they are stored in.
        """
        low, high = self.value_range or (0.0, _largest(dtype))
        scaled = pixels.astype(np.float32)
        if low:
            scaled -= np.float32(low)
        return scaled / np.float32(high - low)

    def files_of(self, source: Source) -> list[Source]:
        """Returns the files of an image: one for each band, or its own."""
        if not self.bands or not isinstance(source, str | os.PathLike):
            return [source]
        place = find_band(source, self.bands)
        if place is None or place.band != self.bands[0]:
            raise ImageError(f"{os.fspath(source)}: is no file of the first band, {self.bands[0]}")
        return [place.path(band) for band in self.bands]

    def digest(self, source: Source, size: int = 16) -> bytes:
        """Returns the BLAKE2 digest of an image's encoded bytes, of all bands together.

        Raises:
            ImageError: a file cannot be read, or is of no band.
        """
        digests = [digest_image(file, size) for file in self.files_of(source)]
        if len(digests) == 1:
            return digests[0]
        return hashlib.blake2b(b"".join(digests), digest_size=size).digest()

    def choose(self, images: Iterable[T]) -> Iterator[T]:
        """Yields the images among files: without those of other bands than the first."""
        return without_other_bands(images, self.bands) if self.bands else iter(images)

    def view(self, source: Source) -> Image.Image:
        """Decodes an image for people: gray, or the first three channels, stretched."""
        return to_picture(self.read(source))


def read_array(source: Source, channels: int | None, max_pixels: int = MAX_PIXELS) -> Array:
    """Decodes the stored numbers of one file: (H, W, C).

    Raises:
        ImageError: it cannot be read, or has another number of channels.
    """
    with opened(source) as file, quiet_decoder():
        return read_stored(file, channels, max_pixels)


def form_of(source: Source) -> str:
    """Returns the format of a file by its content, such as "TIFF" or "NPY".

    Raises:
        ImageError: it is another kind of file.
    """
    with opened(source) as file:
        return identify_stored(file)


def to_picture(array: Array) -> Image.Image:
    """Returns a picture of an image (H, W, C): gray, or its first three channels, stretched.

    8-bit gray and RGB are shown as they are.
    """
    shown = array[..., :3] if array.shape[2] >= 3 else array[..., :1]
    if array.dtype != np.uint8 or array.shape[2] not in (1, 3):
        values = shown.astype(np.float64)
        low, high = np.percentile(values, (_DARK, _BRIGHT), axis=(0, 1))
        stretched = (values - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
        shown = (np.clip(stretched, 0, 1) * 255 + 0.5).astype(np.uint8)
    single = shown.shape[2] == 1
    return Image.fromarray(np.ascontiguousarray(shown[..., 0] if single else shown)).convert("RGB")


def resize_channels(
    array: Array,
    size: tuple[int, int],
    how: Image.Resampling,
    window: tuple[int, int, int, int] | None = None,
) -> NDArray[np.float32]:
    """Resizes each channel with Pillow, as 32-bit floats, and cuts a window out.

    Integers are clipped to the range of their type, as in Pillow's 8-bit images: filters overshoot.

    Args:
        array: The image (H, W, C).
        size: Width and height of the whole resized image.
        how: Filter.
        window: Left, top, right and bottom in the resized image; None is all of it.

    Returns:
        The window (h, w, C), in the stored numbers' scale.
    """
    left, top, right, bottom = window or (0, 0, *size)
    resized = np.empty((bottom - top, right - left, array.shape[2]), np.float32)
    for channel in range(array.shape[2]):
        image = Image.fromarray(np.ascontiguousarray(array[..., channel], np.float32))
        if image.size != size:
            image = image.resize(size, how)
        resized[..., channel] = np.asarray(image)[top:bottom, left:right]
    if array.dtype.kind in "ui":
        limits = np.iinfo(array.dtype)
        np.clip(resized, limits.min, limits.max, out=resized)
    return resized


def _has_range(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "bf" or (dtype.kind == "u" and dtype.itemsize <= 2)


def _largest(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def _describe(array: Array) -> str:
    return f"{array.shape[1]}x{array.shape[0]} pixels of {array.dtype}"
