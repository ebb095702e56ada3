"""Sizes of images from the headers of their files, for checks of many before any is decoded."""

import os
import stat
from pathlib import Path

from PIL import ExifTags, Image

from spanets_runtime.decoding.formats import FORMATS
from spanets_runtime.images import quiet_decoder

_TURNED = (5, 6, 7, 8)


# With what a whole file ends, but for what may be appended to it.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_END_BYTES = 1024


def quick_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Returns height and width of an image, upright, or None where only decoding it can tell.

    Such as of a file without the end that its format has. What is wrong with it, and whether
    anything is, `load_image` says.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe might never end
            return None
        Image.init()
        known = [form for form in FORMATS if form in Image.OPEN]  # but those of plug-ins
        with quiet_decoder(), Image.open(path, formats=known) as image:
            if not _has_end(path, image.format):
                return None
            orientation = _orientation(image)
            if orientation != 1 and image.format == "TIFF":
                return None  # versions of Pillow differ in whether they turn it themselves
            return image.size if orientation in _TURNED else (image.height, image.width)
    # Pillow documents no closed set of errors.
    except Exception:
        return None


def _has_end(path: str | os.PathLike[str], form: str | None) -> bool:
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _END_BYTES))
        return _ENDS.get(form or "", b"") in file.read()


def _orientation(image: Image.Image) -> object:
    """Returns the EXIF orientation, as far as it stands before the pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # to look for it behind the pixels, Pillow decodes them
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata; `load_image` ignores them as well
        return 1
