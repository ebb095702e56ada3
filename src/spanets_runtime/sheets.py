"""Draws sheets of pictures: rows of images with captions, such as pairs of near-duplicates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from spanets_runtime.errors import UserError
from spanets_runtime.fonts import font_for, picture_label
from spanets_runtime.images import StoredImage, load_image
from spanets_runtime.pictures import fit_picture, save_picture

SIDE = 160
"""Largest side of a picture on a sheet, in pixels."""

MOST_GROUPS = 60
"""Largest number of groups on a sheet."""

_LINE, _GAP, _LETTERS = 14, 8, 26


@dataclass(frozen=True)
class Cell:
    """A picture with its caption.

    Attributes:
        image: Path of the image, or an image inside a larger file.
        lines: Lines of the caption.
        colour: Colour of the frame, or None without one.
        paint: Draws on the picture before it is made smaller, or None.
        view: Decodes the image.
    """

    image: str | StoredImage
    lines: tuple[str, ...]
    colour: str | None = None
    paint: Callable[[Image.Image], Image.Image] | None = None
    view: Callable[[str | StoredImage], Image.Image] = load_image


Group = Sequence[Cell]
"""Cells that belong together, side by side."""


def save_sheet(groups: Sequence[Group], path: Path, groups_a_row: int = 1) -> tuple[str, ...]:
    """Draws groups of pictures and writes them as PNG.

    Args:
        groups: At most `MOST_GROUPS` groups.
        path: Path of the file.
        groups_a_row: Number of groups side by side.

    Returns:
        A line for each picture that cannot be read any more; its place is gray.

    Raises:
        UserError: the path cannot be written.
    """
    assert len(groups) <= MOST_GROUPS
    across = max(map(len, groups))
    lines = max(len(cell.lines) for group in groups for cell in group)
    wide, high = across * (SIDE + _GAP) + 2 * _GAP, SIDE + lines * _LINE + 2 * _GAP
    rows = -(-len(groups) // groups_a_row)
    size = (wide * min(groups_a_row, len(groups)), high * rows)
    sheet, errors = Image.new("RGB", size, "white"), dict[str, str]()
    for number, group in enumerate(groups):
        row, column = divmod(number, groups_a_row)
        for place, cell in enumerate(group):
            corner = (column * wide + _GAP + place * (SIDE + _GAP), row * high + _GAP)
            _draw_cell(sheet, cell, corner, errors)
    save_picture(sheet, path)
    return tuple(errors.values())


def _draw_cell(
    sheet: Image.Image, cell: Cell, corner: tuple[int, int], errors: dict[str, str]
) -> None:
    x, y = corner
    draw = ImageDraw.Draw(sheet)
    try:
        picture = cell.view(cell.image)
        picture = fit_picture(cell.paint(picture) if cell.paint else picture, (SIDE, SIDE))
        place = (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2)
        sheet.paste(picture, place)
    except UserError as error:
        errors[str(cell.image)] = str(error)
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill="lightgray")
    if cell.colour is not None:
        draw.rectangle((x - 2, y - 2, x + SIDE + 1, y + SIDE + 1), outline=cell.colour, width=2)
    for number, line in enumerate(cell.lines):
        text = picture_label(line, _LETTERS)
        draw.text((x, y + SIDE + 2 + number * _LINE), text, "black", font_for(text, 11))
