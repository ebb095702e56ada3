"""Pictures that predicting leaves: their names, and writing them whole or not at all."""

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.listing import FoundImage, ImageSource


def place_of(image: ImageSource) -> str:
    """Returns what pictures of an image are called: its stem, below its sub-folders if any."""
    return image.place if isinstance(image, FoundImage) else Path(image).stem


def free_name(stem: str, taken: set[str]) -> str:
    """Returns the stem, numbered if it is taken already; takes it."""
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a picture, of the format that the suffix names: .png or .jpg.

    Raises:
        UserError: the place cannot be written.
    """
    buffer = BytesIO()
    options: dict[str, Any] = {"format": "PNG"}
    if path.suffix == ".jpg":
        options = {"format": "JPEG", "quality": 90}
    image.save(buffer, **options)
    if path.is_dir():
        raise UserError(f"{path}: is a folder")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
