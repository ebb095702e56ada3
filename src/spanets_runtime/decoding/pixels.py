"""Converts decoded pixels to what a viewer shows."""

import numpy as np
from PIL import Image

from spanets_runtime.decoding.decoded import Decoded, Refused

# The operation that makes an image with this EXIF orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_WIDE = "32-bit integer pixels have no fixed range; save it with 8 or 16 bits"


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Applies an EXIF orientation to an image."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgb(decoded: Decoded) -> Image.Image:
    """Returns what a viewer shows, in mode "RGB", independent of the file.

    - Transparent pixels are blended with white. The colours stored under them are arbitrary, mostly
      black, and no viewer shows them.
    - Gray of more than 8 bits keeps the upper 8, so that the same gray has the same value in every
      image of a data set. Gray of 32 bits is read as 16 bits, which Pillow stores so, and refused
      if a number is larger.
    """
    image = _as_shown(decoded)
    if decoded.hidden is not None:
        pixels = np.array(image.convert("RGB"))
        pixels[decoded.hidden] = 255
        return Image.fromarray(pixels)
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode == "RGB" and decoded.form in ("JPEG", "PNG", "TIFF"):
        return image  # already independent of the file; a copy would take 5 % longer
    return image.convert("RGB")  # also makes a copy without the file


def _as_shown(decoded: Decoded) -> Image.Image:
    """Returns the image with gray of at most 8 bits, where 0 is black."""
    image = decoded.image
    if image.mode.startswith("I"):
        gray = np.asarray(image)  # (H, W), 16 bits unsigned or 32 bits signed
        if gray.min() < 0 or gray.max() > 0xFFFF:
            raise Refused(_WIDE)
        bits = 16 if decoded.scaled else min(decoded.top.bit_length(), 16)
        image = Image.fromarray((gray >> (bits - 8)).astype(np.uint8))
    if decoded.white_is_zero:
        return Image.fromarray(255 - np.asarray(image))
    return image


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow has no direct way from premultiplied gray to RGBA
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas
