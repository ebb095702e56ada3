"""Decodes an image file to its stored numbers, (H, W, C), of any format."""

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.decoding.decoded import Decoded, Refused
from spanets_runtime.decoding.formats import identify
from spanets_runtime.decoding.jpeg import read_jpeg
from spanets_runtime.decoding.npy import MAGIC, read_npy
from spanets_runtime.decoding.others import read_other
from spanets_runtime.decoding.png import read_deep_png, read_png
from spanets_runtime.decoding.tiff_array import read_tiff_array

_DEEP_PPM = "a PPM of more than 8 bits, of which only 8 are read; save it as PNG or TIFF"
_REDUCED = ("AVIF", "HEIF", "GIF")

# By EXIF orientation: whether to exchange rows and columns first, then to flip rows, columns.
_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1)}
_TURNS[8] = (1, 1, 0)


def read_stored(file: BinaryIO, channels: int | None, max_pixels: int) -> NDArray[Any]:
    """Decodes the stored numbers of an image, upright, in this machine's byte order.

    Args:
        file: The open file.
        channels: Number of channels that the image must have; None takes any.
        max_pixels: Limit of width times height.

    Returns:
        The image (H, W, C), in its own type: bool, integers or floats.

    Raises:
        Refused: another number of channels, NaN or infinity, or an image that cannot be read.
    """
    array, orientation = _read(file, channels, max_pixels)
    if channels is not None and array.shape[2] != channels:
        raise Refused(f"has {array.shape[2]} channels, must have {channels} (data.channels)")
    if array.dtype.kind not in "buif":
        raise Refused(f"an array of type {array.dtype}, must be of integers or floats")
    if array.dtype.kind == "f" and (count := int((~np.isfinite(array)).sum())):
        raise Refused(f"has {count} values that are NaN or infinite; fill them")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return _turn(array, orientation)


def identify_stored(file: BinaryIO) -> str:
    """Returns "NPY", or else what `identify` returns."""
    file.seek(0)
    return "NPY" if file.read(len(MAGIC)) == MAGIC else identify(file)


def _read(file: BinaryIO, channels: int | None, max_pixels: int) -> tuple[NDArray[Any], int]:
    form = identify_stored(file)
    if form == "NPY":
        return read_npy(file, channels, max_pixels), 1
    if form == "TIFF":
        return read_tiff_array(file, channels, max_pixels)
    if form in _REDUCED:
        raise Refused(f"a file of {form}, which is read as 8-bit RGB only: leave out data.channels")
    if form == "PNG":
        if (found := read_deep_png(file, max_pixels)) is not None:
            return found
        decoded = read_png(file, max_pixels)
    elif form == "JPEG":
        decoded = read_jpeg(file, max_pixels)
    else:
        decoded = read_other(file, form, max_pixels)
        if form == "PPM" and decoded.bits > 8 and decoded.image.mode == "RGB":
            raise Refused(_DEEP_PPM)  # Pillow keeps the upper 8
    return _to_array(decoded), decoded.orientation


def _to_array(decoded: Decoded) -> NDArray[Any]:
    """Returns the pixels (H, W, C); palettes as their colours."""
    image = decoded.image
    if image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("1", "La", "RGBa"):
        image = image.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}[image.mode])
    array = np.asarray(image)
    if image.mode.startswith("I"):
        array = array.astype(np.uint16)
    if decoded.white_is_zero:
        array = np.iinfo(array.dtype).max - array
    return array if array.ndim == 3 else array[..., None]


def _turn(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation not in _TURNS:
        return array
    is_swapped, flips_rows, flips_columns = _TURNS[orientation]
    turned = array.swapaxes(0, 1) if is_swapped else array
    return turned[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1]
