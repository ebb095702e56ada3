"""Image and category ids of an annotation file, for writing results on its images."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from spanets.formats.coco.objects import CocoData, CocoImage, find_numbers


class Numbering:
    """Finds the entry of an image file in an annotation file, by the end of its path.

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
        """Returns the entry whose file name is the longest end of the image's path, or None."""
        parts = _parts(path.absolute())
        fitting = [
            (len(own), image)
            for own, image in self._by_name.get(parts[-1], [])
            if parts[-len(own) :] == own
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None

    def category_ids(self, classes: Sequence[str]) -> list[int]:
        """Returns the file's id of each class, or an unused higher id if it has none."""
        return find_numbers(self.listing, classes)


def _parts(path: Path) -> tuple[str, ...]:
    """Returns the parts of a path, with slashes and Unicode form normalised."""
    text = unicodedata.normalize("NFC", str(path).replace("\\", "/"))
    return PurePosixPath(text).parts
