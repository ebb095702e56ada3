"""Reads image sizes from file headers, to check many images without decoding them."""

import os
import stat
from pathlib import Path

from PIL import ExifTags, Image

from spanets_runtime.decoding.formats import FORMATS
from spanets_runtime.images import quiet_decoder

_TURNED = (5, 6, 7, 8)

# Bytes at the end of a complete file; other data may follow them.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_END_BYTES = 1024
_LATE_BYTES = 2**16  # that are searched for metadata after the pixels

# Texts and chunks of a PNG that may hold an orientation, before the pixels and after them.
_TEXTS = ("Raw profile type exif", "XML:com.adobe.xmp")
_LATE = (b"eXIf", *(text.encode() for text in _TEXTS))


def quick_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Returns height and width of an image, upright, or None if only decoding can tell.

    For example, a file without the end marker of its format gives None. `load_image` reports what
    is wrong with such a file, if anything.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe might never end
            return None
        Image.init()
        known = [form for form in FORMATS if form in Image.OPEN]  # without plug-in formats
        with quiet_decoder(), Image.open(path, formats=known) as image:
            end = _read_end(path, _LATE_BYTES if image.format == "PNG" else _END_BYTES)
            if _ENDS.get(image.format or "", b"") not in end[-_END_BYTES:]:
                return None
            orientation = _orientation(image, end)
            if orientation is None or (orientation != 1 and image.format == "TIFF"):
                return None  # some versions of Pillow rotate TIFF themselves
            return image.size if orientation in _TURNED else (image.height, image.width)
    # Pillow documents no closed set of errors.
    except Exception:
        return None


def _read_end(path: str | os.PathLike[str], count: int) -> bytes:
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - count))
        return file.read()


def _orientation(image: Image.Image, end: bytes) -> object:
    """Returns the EXIF orientation, or None if only decoding can tell.

    Args:
        image: The opened image.
        end: Last bytes of its file.
    """
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow would decode the pixels to search for it after them.
        is_told = any(text in image.info for text in _TEXTS) or any(name in end for name in _LATE)
        return None if is_told else 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata, which `load_image` also ignores
        return 1
