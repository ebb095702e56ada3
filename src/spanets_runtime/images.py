"""Decodes an image file into 8-bit RGB, or raises an error that says in one line why it cannot.

Files are not trusted. The format is detected from the bytes, never from the suffix. The size is
checked in the header before any pixel is decoded. Every failure of a decoder becomes an
`ImageError`. The readers of the formats are in `spanets_runtime.decoding`.
"""

import hashlib
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
    "describe_error",
    "describe_unreadable",
    "digest_image",
    "load_described",
    "load_image",
    "opened",
    "quiet_decoder",
]

_READERS = {"JPEG": read_jpeg, "PNG": read_png, "TIFF": read_tiff}

_IS_QUIET = ContextVar("_IS_QUIET", default=False)


class ImageError(UserError):
    """A file cannot be used as an image; the message has its path and the reason."""


def describe_error(path: str | os.PathLike[str], error: ImageError) -> str:
    """Returns the error's message, with the image's path if it does not contain it."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def describe_unreadable(messages: Iterable[str], count: int) -> str:
    """Returns a line about unreadable images that were left out, of `count` images."""
    first, *others = messages
    return f"{1 + len(others)} of {count} images left out, unreadable, such as {first}"


class StoredImage(Protocol):
    """An image inside a larger file, such as a shard; its `str` says where it is."""

    def read(self) -> bytes:
        """Returns its encoded bytes."""


def load_image(
    source: str | os.PathLike[str] | StoredImage, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes an image into 8-bit RGB, upright.

    The result is what a viewer shows, see docs/images.md: the orientation is applied, transparent
    pixels become white, gray of more than 8 bits is scaled by the range of its format, and only the
    first frame is read. Colour profiles are not applied. The result carries no metadata, so that
    nothing rotates it again.

    Args:
        source: Path of the file (the suffix does not matter), or a stored image.
        max_pixels: Limit of width times height, checked before decoding. Pillow's own limit also
            applies, and formats whose decoders hold several copies of an image have lower limits.

    Returns:
        An image in mode "RGB", independent of the file.

    Raises:
        ImageError: the file is missing, not an image of a known format, too large, truncated or
            corrupt.
    """
    return load_described(source, max_pixels)[0]


def load_described(
    source: str | os.PathLike[str] | StoredImage, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, Decoded]:
    """Decodes an image as `load_image` does; also returns its stored pixels and format.

    Raises:
        ImageError: See `load_image`.
    """
    with _named_errors(source), _open(source) as file:
        decoded = _decode(file, max_pixels)
        image = upright(to_rgb(decoded), decoded.orientation)
        image.info.clear()
        return image, decoded


def digest_image(source: str | os.PathLike[str] | StoredImage, size: int = 16) -> bytes:
    """Returns the BLAKE2 digest of an image's encoded bytes, of `size` bytes.

    Raises:
        ImageError: the image cannot be read.
    """
    with _named_errors(source), _open(source) as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=size))  # type: ignore[arg-type]
    return found.digest()


def decode_image(
    source: str | os.PathLike[str] | StoredImage, max_pixels: int = MAX_PIXELS
) -> Decoded:
    """Decodes an image to its stored pixels, without rotation or reduction to 8 bits.

    Raises:
        ImageError: See `load_image`.
    """
    with _named_errors(source), _open(source) as file:
        return _decode(file, max_pixels)


@contextmanager
def opened(source: str | os.PathLike[str] | StoredImage) -> Iterator[BinaryIO]:
    """Opens the encoded bytes of an image; every error within becomes an `ImageError`."""
    with _named_errors(source), _open(source) as file:
        yield file


@contextmanager
def _named_errors(source: str | os.PathLike[str] | StoredImage) -> Iterator[None]:
    """Turns every decoding error into an `ImageError` that names the image."""
    try:
        yield
    except UserError:  # from the storage
        raise
    # Damaged files make Pillow raise almost every built-in exception.
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
    """Opens a file; does not wait for the other end if it is a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """Silences Pillow's warnings.

    `load_image` does this itself. Entering it once around many images is faster: setting the
    filters takes a fiftieth of the time of an image.
    """
    if _IS_QUIET.get():
        yield
        return
    token = _IS_QUIET.set(True)
    try:
        with warnings.catch_warnings():
            # The warnings concern unused metadata, and sizes, which are checked here. Filter only
            # Pillow's: in a program with threads a filter may outlive this block.
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
    """Explains an error of Pillow or the file system in a few words."""
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
