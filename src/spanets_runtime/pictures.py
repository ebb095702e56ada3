"""Names and writes the output files of predictions, without overwriting other files.

Each output file carries a mark. A file without the mark is not ours and is never replaced. An input
image is never replaced either, even with the mark.
"""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.listing import FoundImage, ImageSource

SOFTWARE = "spanets predict"
"""The mark: text "Software" of a PNG, comment of a JPEG, or among the first bytes of JSON."""

_MARKED_BYTES = 4096

MAX_JPEG_SIDE = 65_500
"""The longest side that libjpeg can write, in pixels."""


def place_of(image: ImageSource) -> str:
    """Returns the relative path, without suffix, for the output files of an image."""
    return image.place if isinstance(image, FoundImage) else Path(image).stem


def free_name(stem: str, taken: set[str]) -> str:
    """Returns the stem, with a number if it is already in `taken`; adds it to `taken`.

    Names that differ only in letter case or Unicode normalization count as equal, because they are
    one file on some systems.
    """
    name, number = stem, 2
    while {name, key := unicodedata.normalize("NFC", name).casefold()} & taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(key)
    return name


def name_outputs(images: Sequence[ImageSource]) -> list[str]:
    """Returns an output name for each image: its own, with a number if names are equal."""
    taken: set[str] = set()
    return [free_name(place_of(image), taken) for image in images]


def check_outputs(images: Iterable[ImageSource], outputs: Iterable[Path]) -> None:
    """Refuses to overwrite input images and foreign files, before any prediction.

    Files are compared by identity, so links and letter case make no difference.

    Args:
        images: The input images.
        outputs: Paths of the files to write.

    Raises:
        UserError: an output path is an input image, or a file that this package did not write.
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
                f"{output}: already exists, and `spanets` did not write it; move it, or name "
                "another folder with --out"
            )


def is_own(path: Path) -> bool:
    """Returns whether a file carries this package's mark."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return SOFTWARE.encode() in file.read(_MARKED_BYTES)
    except OSError:
        return False


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a picture with our mark as .png or .jpg.

    A picture that is too large for JPEG is made smaller.

    Raises:
        UserError: the path cannot be written.
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


def fit_picture(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns a picture with its aspect ratio, as large as fits in a size; no side becomes 0."""
    # Pillow alone rounds the shorter side of a very elongated picture to 0.
    wide, high = size
    if image.width >= 2 * image.height * wide:
        return image.resize((wide, 1))
    if image.height >= 2 * image.width * high:
        return image.resize((1, high))
    return ImageOps.contain(image, size)


def identify(path: ImageSource) -> tuple[int, int] | None:
    """Returns the identity of a file, equal for all its paths; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
