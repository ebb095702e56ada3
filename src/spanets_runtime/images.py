"""Decodes one image, whatever its file holds, into 8-bit RGB, or says in one line why it cannot.

Files come from users and from the web, so nothing about them is trusted: the format is told from
the bytes and never from the suffix, the size is read from the header before any pixel is decoded,
and every failure of the decoder becomes an `ImageError`. The readers of each format are in
`spanets_runtime.decoding`.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import BinaryIO, Protocol

from PIL import Image, UnidentifiedImageError

from spanets_runtime.decoding.decoded import MAX_PIXELS, Decoded, Refused
from spanets_runtime.decoding.formats import FORMATS, IMAGE_SUFFIXES, identify
from spanets_runtime.decoding.jpeg import read_jpeg
from spanets_runtime.decoding.others import read_other
from spanets_runtime.decoding.pixels import to_rgb, upright
from spanets_runtime.decoding.png import read_png
from spanets_runtime.decoding.tiff import read_tiff
from spanets_runtime.errors import UserError

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageError",
    "StoredImage",
    "decode_image",
    "describe_unreadable",
    "load_image",
    "named",
    "quiet_decoder",
]

_READERS = {"JPEG": read_jpeg, "PNG": read_png, "TIFF": read_tiff}

_IS_QUIET = ContextVar("_IS_QUIET", default=False)


class ImageError(UserError):
    """A file that cannot be used as an image; the message is its path and what is wrong."""


def named(path: str | os.PathLike[str], error: ImageError) -> str:
    """Returns a message that names the image, as those of the reader do by themselves."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def describe_unreadable(messages: Iterable[str], count: int) -> str:
    """Returns a line about unreadable images of so many that were passed over."""
    first, *others = messages
    return f"{1 + len(others)} of {count} images left out, unreadable, such as {first}"


class StoredImage(Protocol):
    """An image that is no file of its own; `str` of it says where it is."""

    def read(self) -> bytes:
        """Returns its encoded bytes."""


def load_image(
    source: str | os.PathLike[str] | StoredImage, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes an image into 8-bit RGB, upright.

    It comes as a viewer shows it, see docs/images.md: orientation applied, transparency laid over
    white, gray of more than 8 bits by the range of its format, of several frames the first. The
    result carries no metadata, so that nothing turns it a second time; profiles of colours are not
    applied.

    Args:
        source: the file, whose suffix does not matter, or what stores it.
        max_pixels: width times height above which the file is refused, before it is decoded.
            Pillow's own limit holds as well, and lower ones for formats whose decoders hold
            several copies of an image.

    Returns:
        An image in mode "RGB", independent of the file.

    Raises:
        ImageError: there is no such file, it is not an image of a known format, or it is too
            large, truncated or corrupt.
    """
    with _told(source), _open(source) as file:
        decoded = _decode(file, max_pixels)
        image = upright(to_rgb(decoded), decoded.orientation)
        image.info.clear()
        return image


def decode_image(
    source: str | os.PathLike[str] | StoredImage, max_pixels: int = MAX_PIXELS
) -> Decoded:
    """Decodes an image as it is stored, neither turned nor reduced to 8 bits.

    Raises:
        ImageError: as for `load_image`.
    """
    with _told(source), _open(source) as file:
        return _decode(file, max_pixels)


@contextmanager
def _told(source: str | os.PathLike[str] | StoredImage) -> Iterator[None]:
    """Makes an `ImageError`, which names the image, of whatever goes wrong in decoding it."""
    try:
        yield
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


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    with quiet_decoder():
        form = identify(file)
        if form in _READERS:
            return _READERS[form](file, max_pixels)
        return read_other(file, form, max_pixels)


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
        raise Refused("is not a regular file")
    if status.st_size == 0:
        raise Refused("the file is empty")


def _reason(error: Exception) -> str:
    """Says in a few words what an error of Pillow or of the file system means for the user."""
    match error:
        case Refused():
            return str(error)
        case UnidentifiedImageError():
            return "truncated or corrupt image (its header cannot be read)"
        case Image.DecompressionBombError():
            return f"too large to be decoded safely ({error})"
        case FileNotFoundError() | NotADirectoryError():
            return "no such file"
        case IsADirectoryError():
            return "is a folder, not an image"
        case ValueError() if "null" in str(error):  # a zero byte in a path
            return "no such file"
        case MemoryError():
            return "not enough memory to decode it"
        case OSError() if error.errno is not None:  # Pillow's own have none
            return f"cannot be read ({error.strerror})"
        case _:
            return f"truncated or corrupt image ({error or type(error).__name__})"
