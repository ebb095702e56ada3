"""Decodes one image, whatever its file holds, into 8-bit RGB, or says in one line why it cannot.

Files come from users and from the web, so nothing about them is trusted: the format is told from
the bytes and never from the suffix, the size is read from the header before any pixel is decoded,
and every failure of the decoder becomes an `ImageError`.
"""

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import BinaryIO, Protocol

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from spanets_runtime.errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""The suffixes, in lower case, that folders are scanned for."""

# A closed list, because some of Pillow's other readers do more than decode: that of EPS, for one,
# runs Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

MAX_PIXELS = 178_956_970
"""The size at which Pillow refuses an image as it comes: twice its `MAX_IMAGE_PIXELS`."""

_IS_QUIET = ContextVar("_IS_QUIET", default=False)

# What of a JPEG may tell its orientation.
_METADATA = frozenset({"exif", "xmp"})

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


class ImageError(UserError):
    """A file that cannot be used as an image; the message is its path and what is wrong."""


class StoredImage(Protocol):
    """An image that is no file of its own; `str` of it says where it is."""

    def read(self) -> bytes:
        """Returns its encoded bytes."""


class _Refused(Exception):
    """An image that could be decoded, but that we refuse; the message says why."""


def load_image(
    source: str | os.PathLike[str] | StoredImage, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes an image into 8-bit RGB, upright.

    - The EXIF orientation is applied, and the result carries no metadata, so that nothing turns it
      a second time. Damaged metadata is ignored.
    - Transparent pixels are laid over white: the colours stored under them are arbitrary, and
      mostly black, so dropping the alpha channel would show the network what no viewer shows.
    - 16-bit gray keeps its upper byte, as 16-bit colour does in Pillow: the range is that of the
      format, so the same gray is the same value in every image of a set.
    - 32-bit integer pixels are read as 16-bit gray, which Pillow also stores like this; values out
      of that range, and floating-point pixels, are refused because black and white are unknown.
    - Of an animation or a multi-page file, the first frame.

    Args:
        source: the file, whose suffix does not matter, or what stores it.
        max_pixels: width times height above which the file is refused, before it is decoded.
            Pillow's own limit holds as well.

    Returns:
        An image in mode "RGB", independent of the file.

    Raises:
        ImageError: there is no such file, it is not an image of a known format, or it is too
            large, truncated or corrupt.
    """
    return _load(source, max_pixels, _to_rgb)


def _load(
    source: str | os.PathLike[str] | StoredImage,
    max_pixels: int,
    convert: Callable[[Image.Image], Image.Image],
) -> Image.Image:
    try:
        with _open(source) as file:
            return _decode(file, max_pixels, convert)
    except UserError:  # of what stores it
        raise
    # Pillow documents no closed set of errors: damaged files have raised almost every built-in one.
    except Exception as error:
        name = os.fspath(source) if isinstance(source, os.PathLike) else source
        raise ImageError(f"{name}: {_reason(error)}") from error


@contextmanager
def _open(source: str | os.PathLike[str] | StoredImage) -> Iterator[BinaryIO]:
    if not isinstance(source, str | os.PathLike):
        yield io.BytesIO(source.read())
        return
    with open(source, "rb", opener=_open_at_once) as file:
        _check_file(os.fstat(file.fileno()))
        yield file


def _open_at_once(path: str, flags: int) -> int:
    """Opens a pipe without waiting for its other end; files are opened as ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """Silences Pillow's warnings, as `load_image` does for itself.

    To be entered around many images: setting filters takes a fiftieth of what an image takes.
    """
    if _IS_QUIET.get():
        yield
        return
    token = _IS_QUIET.set(True)
    try:
        with warnings.catch_warnings():
            # They concern metadata, which is not used, and sizes, which are bounded here. Only
            # Pillow's, because in a program with threads a filter may outlive this block.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
            yield
    finally:
        _IS_QUIET.reset(token)


def _decode(
    file: BinaryIO, max_pixels: int, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    with quiet_decoder(), Image.open(file, formats=FORMATS) as image:
        _check_size(image.width, image.height, max_pixels)
        image.load()
        converted = convert(image)
        orientation = _orientation(image)
    if orientation in _UPRIGHT:
        converted = converted.transpose(_UPRIGHT[orientation])
    converted.info.clear()
    return converted


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
        raise _Refused("is not a regular file")
    if status.st_size == 0:
        raise _Refused("the file is empty")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise _Refused(f"{width}x{height} pixels is no image")
    if width * height > max_pixels:
        raise _Refused(f"{width}x{height} pixels is over the limit of {max_pixels} pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Returns an image in mode "RGB" that needs no file, from any mode the formats can bring."""
    if image.mode == "F":
        raise _Refused("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _upper_byte(image).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode == "RGB" and image.format == "JPEG":
        return image  # it has one frame, which is decoded: a copy would take a twentieth more
    return image.convert("RGB")  # a copy if it is so already: without the file


def _upper_byte(image: Image.Image) -> Image.Image:
    """Reduces 16-bit gray (modes "I;16…", or "I" that holds it) to mode "L"."""
    gray = np.asarray(image)  # (H, W), 16 bits unsigned or 32 bits signed
    if gray.min() < 0 or gray.max() > 0xFFFF:
        raise _Refused("32-bit integer pixels have no fixed range; save it with 8 or 16 bits")
    return Image.fromarray((gray >> 8).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow has no direct way from premultiplied gray to RGBA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation: 1 is upright, 2 to 8 are the keys of `_UPRIGHT`."""
    # Of a JPEG all that could tell it is there by now; to look takes a hundredth of decoding it.
    if image.format == "JPEG" and not _METADATA & image.info.keys():
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    # ImageNet, too, has photos with damaged EXIF; their pixels are fine.
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _reason(error: Exception) -> str:
    """Says in a few words what an error of Pillow or of the file system means for the user."""
    match error:
        case _Refused():
            return str(error)
        case UnidentifiedImageError():
            return f"not an image, or none of {', '.join(FORMATS)}"
        case Image.DecompressionBombError():
            return f"too large to be decoded safely ({error})"
        case FileNotFoundError() | NotADirectoryError():
            return "no such file"
        case IsADirectoryError():
            return "is a folder, not an image"
        case MemoryError():
            return "not enough memory to decode it"
        case OSError() if error.errno is not None:  # Pillow's own have none
            return f"cannot be read ({error.strerror})"
        case _:
            return f"truncated or corrupt image ({error or type(error).__name__})"
