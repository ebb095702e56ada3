"""Decodes an image file whose pixels are numbers, as they are stored, not as they are shown."""

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
"""The largest number that a pixel can have."""

_ADVICE = "save it as PNG with 8-bit gray or a palette"


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
    decoded = decode_image(path, max_pixels)
    try:
        numbers = _stored_numbers(decoded)
    except Refused as error:
        raise ImageError(f"{os.fspath(path)}: {error}") from None
    colours = decoded.image.getpalette("RGB") if decoded.image.mode == "P" else None
    palette = None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)
    return Labels(numbers, palette)


def _stored_numbers(decoded: Decoded) -> NDArray[np.uint16]:
    """Returns the numbers that the file stores, (H, W), upright."""
    if decoded.form in LOSSY:
        raise Refused(f"{decoded.form} changes the numbers of pixels; save it as PNG")
    # Programs differ in which of the two is meant; the bits of a PBM count down as well.
    is_pbm = decoded.form == "PPM" and decoded.image.mode == "1"
    if is_pbm or (decoded.white_is_zero and decoded.top == 1):
        raise Refused(f"its bits count down from white (white-is-zero); {_ADVICE}")
    image = decoded.image
    if len(image.getbands()) > 1:
        image = _one_channel(image, is_whole=decoded.bits == 8 and decoded.top == 255)
    numbers = np.asarray(upright(image, decoded.orientation)).astype(np.int64)
    if decoded.scaled:  # to the range that is shown; exact, since no two numbers become one
        full = 255 if image.mode == "L" else MAX_NUMBER
        numbers = np.rint(numbers * (decoded.top / full)).astype(np.int64)
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > MAX_NUMBER:
        raise Refused(f"its numbers are {low} to {high}, must be 0 to {MAX_NUMBER}")
    return numbers.astype(np.uint16)


def _one_channel(image: Image.Image, is_whole: bool) -> Image.Image:
    """Returns a channel of an image whose channels are all the same, and as they are stored."""
    names = image.getbands()
    channels = [np.asarray(image.getchannel(name)) for name in names if name != "A"]
    is_opaque = "A" not in names or image.getchannel("A").getextrema() == (255, 255)
    is_gray = names[0] in "LR" and all((c == channels[0]).all() for c in channels)
    if not is_whole or not is_opaque or not is_gray:
        raise Refused(
            f"its pixels are colours (mode {image.mode}), not one class number each; {_ADVICE}"
        )
    return image.getchannel(0)
