"""Data sets with one file a band: lists each image once, and checks that its bands are there."""

import os
from collections.abc import Sequence
from typing import Any

from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.samples import Samples
from spanets_runtime.bands import find_band
from spanets_runtime.errors import UsageError, UserError


def choose_bands(
    images: Sequence[Any], bands: Sequence[str], root: str
) -> tuple[list[int], list[str]]:
    """Chooses the files of the first band, which stand for the images.

    Args:
        images: Files of all bands, or of the first band only.
        bands: Names of the bands.
        root: The data set, for messages.

    Returns:
        Indices of the chosen files, and a note if there are files of no band.

    Raises:
        UserError: an image lacks a band, or no file is of one.
    """
    listed = {os.fspath(image) for image in images}
    kept: list[int] = []
    odd: list[str] = []
    found: set[str] = set()
    lacking: dict[str, str] = {}
    for index, image in enumerate(images):
        if (place := find_band(image, bands)) is None:
            odd.append(os.fspath(image))
            continue
        if place.band == bands[0]:
            kept.append(index)
        if (name := place.path("*")) in found:
            continue
        found.add(name)
        paths = {band: place.path(band) for band in bands}
        missing = [b for b, p in paths.items() if p not in listed and not os.path.isfile(p)]
        if missing:
            lacking[name] = ", ".join(missing)
    if lacking:
        name, bands_missing = next(iter(lacking.items()))
        raise UserError(
            f"{root}: {len(lacking)} of {len(found)} images lack a band, such as {name} (no "
            f"{bands_missing}); add the files, or remove the image's others"
        )
    if not kept:
        names = ", ".join(bands)
        raise UserError(
            f"{root}: none of {len(odd)} files is of a band of data.bands ({names}), such as "
            f"{odd[0]}; see docs/images.md for the names"
        )
    files = f"{len(odd)} file{'s' * (len(odd) > 1)}"
    note = f"{root}: {files} left out, of none of the bands, such as {odd[0]}" if odd else ""
    return kept, [note] * bool(odd)


def keep_bands(samples: Samples, bands: Sequence[str] | None, root: str) -> Samples:
    """Returns one sample an image, under the file of its first band; see `choose_bands`."""
    if not bands:
        return samples
    kept, notes = choose_bands(samples.images, bands, root)
    return samples.subset(kept).noted(notes)


def join_bands(parts: dict[str, Samples], data: ImageLevelData, source: str) -> dict[str, Samples]:
    """Returns the parts of a data set with one sample an image; see `choose_bands`.

    Raises:
        UsageError: the data set is not of files.
        UserError: see `choose_bands`.
    """
    if data.bands and source not in ("folder", "table"):
        raise UsageError(f"data.bands is for folders and tables, and data.source is {source}")
    return {name: keep_bands(part, data.bands, str(data.root)) for name, part in parts.items()}
