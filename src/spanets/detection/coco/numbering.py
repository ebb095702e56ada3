"""The numbers that an annotation file has for images and classes, for results on its images."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from spanets.detection.coco.objects import CocoData, CocoImage, find_numbers


class Numbering:
    """Finds the entry of an annotation file that an image file belongs to, by the end of its path.

    Args:
        listing: See `read_listing`.
    """

    def __init__(self, listing: CocoData) -> None:
        self.listing = listing
        self._by_name: dict[str, list[tuple[tuple[str, ...], CocoImage]]] = {}
        for image in listing.images:
            parts = _parts(image.path)
            self._by_name.setdefault(parts[-1], []).append((parts, image))

    def find(self, path: Path) -> CocoImage | None:
        """Returns the entry whose file name is the longest end of an image's path, or None."""
        parts = _parts(path.absolute())
        fitting = [
            (len(own), image)
            for own, image in self._by_name.get(parts[-1], [])
            if parts[-len(own) :] == own
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None

    def category_ids(self, classes: Sequence[str]) -> list[int]:
        """Returns the file's number of each class; higher ones for those that it does not list."""
        return find_numbers(self.listing, classes)


def _parts(path: Path) -> tuple[str, ...]:
    """Returns the parts of a path in one form, whichever slashes and Unicode it is written with."""
    text = unicodedata.normalize("NFC", str(path).replace("\\", "/"))
    return PurePosixPath(text).parts
