"""What the readers of all formats hand on, what they refuse, and the sizes they allow."""

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

MAX_PIXELS = 178_956_970
"""The size at which Pillow refuses an image as it comes: twice its `MAX_IMAGE_PIXELS`."""

MAX_HELD_BYTES = 2**29
"""Largest file of a format that is held in memory whole to be decoded."""

# What decoding takes of memory at most, in bytes a pixel, as measured: with `MAX_PIXELS` 1.4 GiB.
# Decoders of these formats hold several copies of an image.
_BYTES_A_PIXEL = 8
_COSTLY = {"WEBP": 16, "AVIF": 16, "HEIF": 16, "JPEG2000": 24}


class Refused(Exception):
    """An image that could be decoded, but that we refuse; the message says why."""


@dataclass(frozen=True)
class Decoded:
    """Pixels as they are stored, and what is needed to show them.

    Attributes:
        image: Of any mode but "F".
        form: The format, one of `formats.FORMATS`.
        orientation: Of EXIF: 1 is upright.
        top: The largest number that a pixel of gray can have: white.
        scaled: The numbers are stretched, so that `top` has become 255 in mode "L", 65535 in "I".
        white_is_zero: The numbers count from white to black.
        bits: Of a channel in the file; colours of more are reduced to 8.
        hidden: Which pixels are transparent, (H, W), beside what `image` says of it.
    """

    image: Image.Image
    form: str
    orientation: int = 1
    top: int = 255
    scaled: bool = False
    white_is_zero: bool = False
    bits: int = 8
    hidden: NDArray[np.bool_] | None = None


def check_size(width: int, height: int, max_pixels: int, form: str = "") -> None:
    """Refuses an image by the size that its header names, before memory is taken for it.

    Args:
        width: In pixels.
        height: In pixels.
        max_pixels: The most that are allowed.
        form: Its format: of those that take more memory to decode, fewer are allowed.
    """
    if width < 1 or height < 1:
        raise Refused(f"{width}x{height} pixels is no image")
    limit = max_pixels * _BYTES_A_PIXEL // _COSTLY.get(form, _BYTES_A_PIXEL)
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit, which a program may lower
        limit = min(limit, 2 * Image.MAX_IMAGE_PIXELS)
    if width * height > limit:
        of_form = f" of {form}" if form in _COSTLY else ""
        raise Refused(f"{width}x{height} pixels is over the limit{of_form} of {limit} pixels")


def read_whole(file: BinaryIO) -> bytes:
    """Returns a file's content, of a bounded size."""
    file.seek(0)
    content = file.read(MAX_HELD_BYTES + 1)
    if len(content) > MAX_HELD_BYTES:
        raise Refused(f"the file is over the limit of {MAX_HELD_BYTES} bytes")
    return content


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation that an image's metadata tell: 1 is upright, 8 the last."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation)
    # ImageNet, too, has photos with damaged EXIF; their pixels are fine.
    except Exception:
        return 1
    return value if isinstance(value, int) else 1
