"""Decodes masks: image files whose stored pixel numbers are class numbers."""

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.decoding.decoded import MAX_PIXELS, Decoded, Refused
from spanets_runtime.decoding.formats import LOSSY
from spanets_runtime.decoding.pixels import upright
from spanets_runtime.images import ImageError, decode_image

MAX_NUMBER = 2**16 - 1
"""The largest number in a mask."""

_ADVICE = "save it as PNG with 8-bit gray or a palette"


@dataclass(frozen=True)
class Labels:
    """The pixels of a mask.

    Attributes:
        numbers: Stored numbers, (H, W).
        palette: RGB colour of each number, (N, 3), or None for a gray image.
    """

    numbers: NDArray[np.uint16]
    palette: NDArray[np.uint8] | None


def load_labels(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint16]:
    """Returns the numbers (H, W) of `read_labels`."""
    return read_labels(path, max_pixels).numbers


def read_labels(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Labels:
    """Decodes a mask: gray of 1 to 16 bits, or palette indices.

    The numbers are those in the file: gray of 4 bits has 0 to 15, not the shades of a viewer. A
    colour image counts as gray if its 8-bit channels are equal and nothing is transparent. The
    orientation is applied, as in `load_image`.

    Args:
        path: Path of the file; its suffix does not matter.
        max_pixels: See `load_image`.

    Raises:
        ImageError: See `load_image`; also if the pixels are not numbers, or the format may have
            changed them.
    """
    decoded = decode_image(path, max_pixels)
    try:
        numbers = _stored_numbers(decoded)
    except Refused as error:
        raise ImageError(f"{os.fspath(path)}: {error}") from None
    colours = decoded.image.getpalette("RGB") if decoded.image.mode == "P" else None
    palette = None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)
    return Labels(numbers, palette)


def _stored_numbers(decoded: Decoded) -> NDArray[np.uint16]:
    """Returns the stored numbers (H, W), upright."""
    if decoded.form in LOSSY:
        raise Refused(f"{decoded.form} changes the numbers of pixels; save it as PNG")
    # Programs disagree on which bit is which class; PBM also stores white as 0.
    is_pbm = decoded.form == "PPM" and decoded.image.mode == "1"
    if is_pbm or (decoded.white_is_zero and decoded.top == 1):
        raise Refused(f"its bits count down from white (white-is-zero); {_ADVICE}")
    image = decoded.image
    if len(image.getbands()) > 1:
        image = _one_channel(image, is_whole=decoded.bits == 8 and decoded.top == 255)
    numbers = np.asarray(upright(image, decoded.orientation)).astype(np.int64)
    if decoded.scaled:  # undo the scaling; exact, since it never merges two numbers
        full = 255 if image.mode == "L" else MAX_NUMBER
        numbers = np.rint(numbers * (decoded.top / full)).astype(np.int64)
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > MAX_NUMBER:
        raise Refused(f"its numbers are {low} to {high}, must be 0 to {MAX_NUMBER}")
    return numbers.astype(np.uint16)


def _one_channel(image: Image.Image, is_whole: bool) -> Image.Image:
    """Returns one channel of an image whose channels are all equal and unchanged."""
    names = image.getbands()
    channels = [np.asarray(image.getchannel(name)) for name in names if name != "A"]
    is_opaque = "A" not in names or image.getchannel("A").getextrema() == (255, 255)
    is_gray = names[0] in "LR" and all((c == channels[0]).all() for c in channels)
    if not is_whole or not is_opaque or not is_gray:
        raise Refused(
            f"its pixels are colours (mode {image.mode}), not one class number each; {_ADVICE}"
        )
    return image.getchannel(0)
