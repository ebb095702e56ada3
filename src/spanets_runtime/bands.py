"""Images with one file a band: how their files are named.

A file is of a band if its stem is the band's name, or ends with it after a character that is no
letter or digit, or if a folder above it has the band's name:

    scene1_B02.tif  scene1_B03.tif        scene1/B02.tif  scene1/B03.tif
    B02/scene1.tif  B03/scene1.tif

An image stands under the path of its first band's file; the other files are found from it.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from spanets_runtime.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")

T = TypeVar("T")


class Place(NamedTuple):
    """Where the name of a band stands in a path."""

    before: str
    band: str
    after: str

    def path(self, band: str) -> str:
        """Returns the path of the same image's file of another band."""
        return self.before + band + self.after


def check_names(bands: Sequence[str]) -> None:
    """Raises ValueError for names that occur twice or could lead to another folder."""
    if wrong := [band for band in bands if not _NAME.fullmatch(band)]:
        raise ValueError(f"the band {wrong[0]!r} must be of letters, digits and _.+-")
    if len(set(bands)) < len(bands):
        raise ValueError("a band is named twice")


def find_band(path: str | os.PathLike[str], bands: Sequence[str]) -> Place | None:
    """Returns where a path names one of the bands, or None."""
    text = os.fspath(path)
    folder, name = os.path.split(text)
    stem, suffix = os.path.splitext(name)
    ends = [band for band in bands if stem.endswith(band)]
    for band in sorted(ends, key=len, reverse=True):
        start = len(stem) - len(band)
        if not start or not stem[start - 1].isalnum():
            return Place(text[: len(text) - len(suffix) - len(band)], band, suffix)
    while folder and (above := os.path.split(folder))[1]:
        if above[1] in bands:
            return Place(folder[: len(folder) - len(above[1])], above[1], text[len(folder) :])
        folder = above[0]
    return None


def without_other_bands(images: Iterable[T], bands: Sequence[str]) -> Iterator[T]:
    """Yields the images without files of another band than the first, which belong to an image."""
    for image in images:
        if (place := find_band(str(image), bands)) is None or place.band == bands[0]:
            yield image


def refuse_other_bands(images: Iterable[T], bands: Sequence[str]) -> Iterator[T]:
    """Yields the images of a table, which has a row for each.

    Raises:
        UsageError: one is a file of another band than the first.
    """
    for image in images:
        if (place := find_band(str(image), bands)) is not None and place.band != bands[0]:
            raise UsageError(
                f"{image}: is of band {place.band}, and a table takes the files of the first band "
                f"only; name them, such as *_{bands[0]}.tif"
            )
        yield image
