"""Decodes an image file whose pixels are numbers, as they are stored, not as they are shown."""

import os
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.images import MAX_PIXELS, _load, _Refused

# WEBP may keep numbers, but a file does not say whether it did.
_LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")

MAX_NUMBER = 2**16 - 1
"""The largest number that a pixel can have."""

_ADVICE = "save it as PNG with 8-bit gray or a palette"

_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_PNG_GRAY = 0

# Signature, width, height and maximum of a PPM, with its comments.
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PPM_HEAD = re.compile(rb"P([1-6])" + (_SPACE + rb"\d+") * 2 + rb"(?:" + _SPACE + rb"(\d+))?")
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Labels:
    """The pixels of a mask.

    Attributes:
        numbers: As they are stored, (H, W).
        palette: The colour that each number is shown in, (N, 3), or None where it is a gray.
    """

    numbers: NDArray[np.uint16]
    palette: NDArray[np.uint8] | None


def load_labels(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint16]:
    """Returns the numbers (H, W) of `read_labels`."""
    return read_labels(path, max_pixels).numbers


def read_labels(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Labels:
    """Decodes an image file whose pixels are numbers: grays of 1 to 16 bits, or palette indices.

    A gray of 4 bits has the numbers 0 to 15, whatever shades a viewer makes of them. Colours count
    as gray where all channels of 8 bits are equal and nothing is transparent. Upright as
    `load_image` makes images.

    Args:
        path: The file; its suffix does not matter.
        max_pixels: As for `load_image`.

    Raises:
        ImageError: as for `load_image`, or the file's pixels are no numbers, or not those that
            were once written.
    """
    image = _load(path, max_pixels, partial(_to_stored, path))
    colours = image.getpalette("RGB")
    palette = None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)
    return Labels(np.asarray(image).astype(np.uint16), palette)


def _to_stored(path: str | os.PathLike[str], image: Image.Image) -> Image.Image:
    """Returns an image, of its own, of the numbers that the file stores."""
    compression = image.info.get("compression")
    if image.format not in _LOSSLESS or compression in _LOSSY_COMPRESSIONS:
        kind = image.format if image.format not in _LOSSLESS else f"{image.format} with JPEG in it"
        raise _Refused(f"{kind} changes the numbers of pixels; save it as PNG")
    with open(path, "rb") as file:
        form = _read_form(image, file.read(_HEAD_BYTES))
    if form.white_is_zero and image.mode == "1":  # programs differ in which of the two is meant
        raise _Refused(f"its bits count down from white (white-is-zero); {_ADVICE}")
    if image.mode == "F":
        raise _Refused(f"its pixels are fractions (mode F), not one class number each; {_ADVICE}")
    if len(image.getbands()) > 1:
        return _one_channel(image, form.top)
    if image.mode in ("1", "P"):
        return image.copy()
    numbers = np.asarray(image).astype(np.int64)
    shown = 255 if image.mode == "L" else MAX_NUMBER
    if form.white_is_zero and image.mode == "L":  # of 16 bits Pillow leaves them
        numbers = shown - numbers
    if form.is_scaled:  # to the range that is shown; exact, since no two numbers become one
        numbers = np.rint(numbers * (form.top / shown)).astype(np.int64)
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > MAX_NUMBER:
        raise _Refused(f"its numbers are {low} to {high}, must be 0 to {MAX_NUMBER}")
    return Image.fromarray(numbers.astype(np.uint16))


def _one_channel(image: Image.Image, top: int) -> Image.Image:
    """Returns a channel of an image whose channels are all the same."""
    names = image.getbands()
    channels = [np.asarray(image.getchannel(name)) for name in names if name != "A"]
    is_opaque = "A" not in names or image.getchannel("A").getextrema() == (255, 255)
    is_gray = names[0] in "LR" and all((c == channels[0]).all() for c in channels)
    if top != 255 or not is_opaque or not is_gray:
        raise _Refused(
            f"its pixels are colours (mode {image.mode}), not one class number each; {_ADVICE}"
        )
    return image.getchannel(0)


@dataclass(frozen=True)
class _Form:
    """How a file stores its numbers.

    Attributes:
        top: The largest number of a channel.
        is_scaled: Whether Pillow stretches them to the range that is shown.
        white_is_zero: Whether 0 is shown as white.
    """

    top: int = 255
    is_scaled: bool = False
    white_is_zero: bool = False


def _read_form(image: Image.Image, head: bytes) -> _Form:
    """Reads from a file's header what Pillow does not tell of an image that is decoded.

    Args:
        image: Of the file.
        head: The first bytes of the file.
    """
    if image.format == "PNG":
        depth, colour = head[24], head[25]  # IHDR comes first
        return _Form(2**depth - 1, colour == _PNG_GRAY and depth in (2, 4))
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(_TIFF_BITS, (1,)))
        return _Form(2**bits - 1, bits in (2, 4), tags.get(_TIFF_PHOTOMETRIC) == 0)
    if image.format == "PPM" and (found := _PPM_HEAD.match(head)):
        kind, top = int(found[1]), int(found[2] or 1)
        return _Form(top, top not in (255, MAX_NUMBER), kind in (1, 4))
    return _Form()
