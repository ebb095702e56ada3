"""The result of all readers, their error, and the limits of image sizes."""

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

MAX_PIXELS = 178_956_970
"""Pillow's default limit, in pixels: twice its `MAX_IMAGE_PIXELS`."""

MAX_HELD_BYTES = 2**29
"""Limit in bytes of a file that is read into memory as a whole."""

MAX_CHANNELS = 16
"""Limit of the channels of an image that keeps its stored numbers."""

MAX_STORED_BYTES = 2**30
"""Limit in bytes of the stored numbers of such an image."""

# Measured peak memory of decoding, in bytes a pixel: 1.4 GiB for `MAX_PIXELS`. The decoders of the
# costly formats hold several copies of an image.
_BYTES_A_PIXEL = 8
_COSTLY = {"WEBP": 16, "AVIF": 16, "HEIF": 16, "JPEG2000": 24}


class Refused(Exception):
    """A reader refuses a file; the message says why."""


@dataclass(frozen=True)
class Decoded:
    """The stored pixels of an image, and what is needed to show them.

    Attributes:
        image: The pixels, in any mode except "F".
        form: The format, one of `formats.FORMATS`.
        orientation: EXIF orientation; 1 is upright.
        top: The number that means white in a gray image.
        scaled: Whether the numbers are scaled, so that `top` is now 255 in mode "L", 65535 in "I".
        white_is_zero: Whether 0 means white.
        bits: Bits of a channel in the file; colours with more bits are reduced to 8.
        hidden: Mask of transparent pixels, (H, W), in addition to the transparency of `image`.
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
    """Refuses an image that is too large by its header, before memory is allocated.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        max_pixels: Limit of width times height.
        form: The format; the limit is lower for formats that need more memory to decode.

    Raises:
        Refused: the image is too large or empty.
    """
    if width < 1 or height < 1:
        raise Refused(f"{width}x{height} pixels is no image")
    limit = max_pixels * _BYTES_A_PIXEL // _COSTLY.get(form, _BYTES_A_PIXEL)
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit, which a program may lower
        limit = min(limit, 2 * Image.MAX_IMAGE_PIXELS)
    if width * height > limit:
        of_form = f" of {form}" if form in _COSTLY else ""
        raise Refused(f"{width}x{height} pixels is over the limit{of_form} of {limit} pixels")


def check_stored(
    height: int, width: int, channels: int, dtype: np.dtype[Any], max_pixels: int
) -> None:
    """Refuses an image of any type and number of channels that is too large by its header.

    Raises:
        Refused: the image is too large or empty.
    """
    check_size(width, height, max_pixels)
    if not 1 <= channels <= MAX_CHANNELS:
        raise Refused(f"has {channels} channels, supported are 1 to {MAX_CHANNELS}")
    if height * width * channels * dtype.itemsize > MAX_STORED_BYTES:
        raise Refused(
            f"{width}x{height} pixels of {channels} channels are over the limit of "
            f"{MAX_STORED_BYTES} bytes"
        )


def read_whole(file: BinaryIO) -> bytes:
    """Returns a file's content; refuses a file that is too large."""
    file.seek(0)
    content = file.read(MAX_HELD_BYTES + 1)
    if len(content) > MAX_HELD_BYTES:
        raise Refused(f"the file is over the limit of {MAX_HELD_BYTES} bytes")
    return content


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation in an image's metadata; 1, upright, if there is none."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation)
    # Photos with damaged EXIF but good pixels exist, also in ImageNet.
    except Exception:
        return 1
    return value if isinstance(value, int) else 1
