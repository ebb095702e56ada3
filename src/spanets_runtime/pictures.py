"""Files that predicting leaves: their names, what they may replace, and writing them whole.

Each carries a mark. What has none was put there by someone else and is never replaced, and neither
is an image that is read, whatever its mark.
"""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.listing import FoundImage, ImageSource

SOFTWARE = "spanets predict"
"""The mark: in a PNG the text "Software", in a JPEG the comment, in JSON among the first bytes."""

_MARKED_BYTES = 4096

MAX_JPEG_SIDE = 65_500
"""The longest that libjpeg writes, in pixels."""


def place_of(image: ImageSource) -> str:
    """Returns what pictures of an image are called: its stem, below its sub-folders if any."""
    return image.place if isinstance(image, FoundImage) else Path(image).stem


def free_name(stem: str, taken: set[str]) -> str:
    """Returns the stem, numbered if it is taken already; takes it.

    Names that differ in letter case or Unicode spelling alone are one file on some systems.
    """
    name, number = stem, 2
    while {name, key := unicodedata.normalize("NFC", name).casefold()} & taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(key)
    return name


def name_outputs(images: Sequence[ImageSource]) -> list[str]:
    """Returns a name for what is found in each image: its own, numbered where names are alike."""
    taken: set[str] = set()
    return [free_name(place_of(image), taken) for image in images]


def check_outputs(images: Iterable[ImageSource], outputs: Iterable[Path]) -> None:
    """Refuses to overwrite what is not ours, before work is done for it.

    Links, and letter case where the file system knows none, make no other file of one.

    Args:
        images: That are read.
        outputs: Files that are to be written.

    Raises:
        UserError: one is an image that is read, or was not written by this package.
    """
    read = {identity: image for image in images if (identity := identify(image)) is not None}
    for output in outputs:
        if (identity := identify(output)) is None:
            continue
        if identity in read:
            raise UserError(
                f"{output}: is the image {read[identity]} and would be overwritten; name another "
                "folder with --out"
            )
        if not is_own(output):
            raise UserError(
                f"{output}: is there already, and `spanets` did not write it; move it, or name "
                "another folder with --out"
            )


def is_own(path: Path) -> bool:
    """Whether this package wrote a file, by its mark."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return SOFTWARE.encode() in file.read(_MARKED_BYTES)
    except OSError:
        return False


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a picture with our mark, of the format that the suffix names: .png or .jpg.

    What is too long for a JPEG is made smaller.

    Raises:
        UserError: the place cannot be written.
    """
    buffer = BytesIO()
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    options: dict[str, Any] = {"format": "PNG", "pnginfo": mark}
    if path.suffix == ".jpg":
        options = {"format": "JPEG", "quality": 90, "comment": SOFTWARE}
        if max(image.size) > MAX_JPEG_SIDE:
            image = image.copy()
            image.thumbnail((MAX_JPEG_SIDE, MAX_JPEG_SIDE))
    image.save(buffer, **options)
    if path.is_dir():
        raise UserError(f"{path}: is a folder")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def identify(path: ImageSource) -> tuple[int, int] | None:
    """Returns what two names of one file have in common, or None where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
