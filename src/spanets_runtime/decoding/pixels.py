"""Decoded pixels to what a viewer shows of them."""

import numpy as np
from PIL import Image

from spanets_runtime.decoding.decoded import Decoded, Refused

# What turns an image stored with this EXIF orientation upright.
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
    """Turns an image as its EXIF orientation says."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgb(decoded: Decoded) -> Image.Image:
    """Returns what a viewer shows, in mode "RGB", that needs no file.

    - Transparent pixels are laid over white: the colours stored under them are arbitrary, and
      mostly black, so dropping the alpha channel would show the network what no viewer shows.
    - Gray of more than 8 bits keeps the upper 8: the range is that of the format, so the same gray
      is the same value in every image of a set. That of 32 bits is read as of 16, as Pillow
      stores these, and refused where it is more.
    """
    image = _as_shown(decoded)
    if decoded.hidden is not None:
        pixels = np.array(image.convert("RGB"))
        pixels[decoded.hidden] = 255
        return Image.fromarray(pixels)
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode == "RGB" and decoded.form in ("JPEG", "PNG", "TIFF"):
        return image  # of one frame, which is decoded: a copy would take a twentieth more
    return image.convert("RGB")  # a copy if it is so already: without the file


def _as_shown(decoded: Decoded) -> Image.Image:
    """Returns the image with gray of 8 bits at most, black being 0."""
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
