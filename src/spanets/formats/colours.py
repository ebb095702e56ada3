"""Masks in colours, with a list that says the colour of each class.

labelmap.txt        background:0,0,0::              CVAT, Datumaro
label_colors.txt    64 128 64 Animal                CamVid
class_dict.csv      name,r,g,b                      CamVid on Kaggle, and others
palette.txt         ground 128 64 128               names first, with any separators
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spanets.data.class_lists import clean_name, read_lines
from spanets_runtime.decoding.formats import LOSSY
from spanets_runtime.decoding.pixels import upright
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, decode_image

LISTS = ("labelmap.txt", "label_colors.txt", "class_dict.csv", "palette.txt", "palette.csv")
"""Names of files that list colours."""

IGNORE = ("ignore", "ignored", "void")
"""Names in such a list, in lower case, that mean pixels to ignore."""

IGNORED = 255
"""The class number of ignored pixels."""

_NUMBERS = r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})"
# Separators before spaces, so that "zone 1,255,0,0" is not "zone" with the numbers 1, 255 and 0.
_NAME_FIRST = [
    re.compile(rf"(.+?)\s*{mark}\s*{_NUMBERS}(?:[:,;].*)?") for mark in (r"[:,;]", r"\s")
]
_NAME_LAST = re.compile(rf"{_NUMBERS}[\s,;]+(.+)")


@dataclass(frozen=True)
class Colours:
    """The colours of classes.

    Attributes:
        source: The file that lists them.
        names: Class names, in its order.
        numbers: The class number, or `IGNORED`, of each colour (red, green, blue).
    """

    source: Path
    names: list[str]
    numbers: dict[tuple[int, int, int], int]

    def read(self, path: Path) -> NDArray[np.uint16]:
        """Returns the class number of each pixel of a mask, (H, W).

        Raises:
            ImageError: the mask cannot be read, its format may have changed the colours, or it has
                a colour that is not listed.
        """
        decoded = decode_image(path)
        if decoded.form in LOSSY:
            raise ImageError(f"{path}: {decoded.form} changes the colours of masks; save it as PNG")
        pixels = np.asarray(upright(decoded.image.convert("RGB"), decoded.orientation), np.uint32)
        packed = pixels @ np.array([65536, 256, 1], np.uint32)  # (H, W)
        colours = sorted(self.numbers, key=_pack)
        known = np.array([_pack(colour) for colour in colours], np.uint32)
        places = np.searchsorted(known, packed).clip(0, len(known) - 1)
        unknown = known[places] != packed
        if unknown.any():
            first = tuple(pixels[unknown][0].tolist())
            raise ImageError(
                f"{path}: {int(unknown.sum())} pixels have colours that {self.source.name} does "
                f"not list, such as {first}"
            )
        return np.array([self.numbers[colour] for colour in colours], np.uint16)[places]


def find_colours(root: Path) -> Colours | None:
    """Reads the list of colours of a folder, or returns None if it has none.

    Raises:
        UserError: a line is no name with three numbers, or a name or colour stands twice.
    """
    path = next((root / name for name in LISTS if os.path.isfile(root / name)), None)
    if path is None:
        return None
    names: list[str] = []
    numbers: dict[tuple[int, int, int], int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line or line.startswith("#") or line.lower().replace(" ", "") == "name,r,g,b":
            continue
        name, colour = _parse(line, f"{path}: line {number}")
        if colour in numbers or name in names:
            raise UserError(f"{path}: line {number} repeats a name or colour: {line[:100]!r}")
        if name.lower() in IGNORE:
            numbers[colour] = IGNORED
        else:
            numbers[colour] = len(names)
            names.append(name)
    if not 1 < len(names) <= IGNORED:
        raise UserError(f"{path}: names {len(names)} classes, must be 2 to {IGNORED}")
    return Colours(path, names, numbers)


def _parse(line: str, where: str) -> tuple[str, tuple[int, int, int]]:
    if match := next(filter(None, (kind.fullmatch(line) for kind in _NAME_FIRST)), None):
        name, *texts = match.groups()
    elif match := _NAME_LAST.fullmatch(line):
        *texts, name = match.groups()
    else:
        raise UserError(f"{where} is {line[:100]!r}, must be a name and three numbers, 0 to 255")
    red, green, blue = (int(text) for text in texts)
    if max(red, green, blue) > 255:
        raise UserError(f"{where} has a number above 255: {line[:100]!r}")
    return clean_name(name), (red, green, blue)


def _pack(colour: tuple[int, int, int]) -> int:
    return colour[0] * 65536 + colour[1] * 256 + colour[2]
