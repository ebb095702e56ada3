"""Statistics of annotated images in any format, for `spanets stats`."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from spanets.data.sources.labelled import Listed
from spanets.data.sources.table import is_table
from spanets.data.statistics.findings import counted, describe_classes, parts_of
from spanets.data.statistics.measuring import Totals
from spanets.data.statistics.report import (
    check_out,
    describe_data,
    measure_listed,
    save_files,
    spread_evenly,
    summarize,
)
from spanets.data.statistics.tables import TableKeys
from spanets.formats.coco.objects import CocoData, CocoImage
from spanets.formats.coco.rle import decode_runs
from spanets.formats.dataset import Dataset
from spanets.formats.masks import is_of_classes
from spanets.formats.reading import FORMATS, check_part, find_formats, read_dataset
from spanets_runtime.arrays import PixelFormat
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.sheets import SIDE, Cell
from spanets_runtime.sizes import quick_size

OBJECTS = "objects"
"""The source of annotated images, beside those of `data.source`."""

SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels up to which COCO calls an object small, and medium."""

_TINY = 2  # objects with a shorter side in pixels are reported
_OWN, _OTHER = "#E69F00", "#B0B0B0"  # colours of the row's class, and of other classes


def describe_source(
    root: str,
    source: str | None = None,
    workers: int = 0,
    out: str | None = None,
    table: TableKeys | None = None,
    format: str | None = None,
    pixels: PixelFormat | None = None,
) -> dict[str, Any]:
    """Measures a data set of any kind, and says what looks odd in it.

    Args:
        root: A folder, a table, or a file that describes annotated images.
        source: One of `data.statistics.report.SOURCES` or `OBJECTS`; None finds it.
        workers: See `describe_data`.
        out: See `describe_data`.
        table: How a table is read; see `describe_data`.
        format: Format of annotated images; None finds it.
        pixels: See `describe_data`; not for annotated images.

    Raises:
        UsageError: an option is for another kind of data set.
        UserError: see `describe_data` and `describe_objects`.
    """
    path = Path(root).expanduser()
    if source is None and is_table(root):
        source = "table"
    found = find_formats(path) if source is None and format is None and path.exists() else []
    kind = source or (OBJECTS if found or format else "folder")
    for option, value, owner in (
        *((name, value, "table") for name, value in _options(table)),
        ("--from", format, OBJECTS),
    ):
        if value is not None and kind != owner:
            raise UsageError(f"{option} is for --source {owner}, and {root} is read as {kind}")
    if kind != OBJECTS:
        return describe_data(root, kind, workers, out, table, pixels)
    if pixels is not None:
        raise UsageError(f"--channels is for labelled images, and {root} is read as {kind}")
    results = describe_objects(path, format, workers, None if out is None else Path(out))
    if found:
        name = FORMATS[found[0]].NAME
        results["notes"].insert(
            0, f"{root}: read as {name}; --source folder reads it as images in class folders"
        )
    return results


def _options(table: TableKeys | None) -> Iterable[tuple[str, Any]]:
    """Returns the options of a table by name."""
    keys = {} if table is None else table.to_data() | ({"task": table.task} if table.task else {})
    return ((f"--{name.replace('_', '-')}", value) for name, value in keys.items())


def describe_objects(
    root: Path, format: str | None = None, workers: int = 0, out: Path | None = None
) -> dict[str, Any]:
    """Measures annotated images; see `describe_data` for the results.

    "objects" has the "format", the "count" of objects, "empty_images" by part, "crowd" regions,
    whether the objects are classes of pixels ("is_pixels"), and for each of the "classes" the
    number of "objects" by part, of "images", and of "small", "medium" and "large" objects, or the
    "share" of pixels.

    Raises:
        UsageError: `out` lies among the images.
        UserError: the annotations cannot be read or are inconsistent, no image is there, or `out`
            cannot be written.
    """
    dataset = read_dataset(root, format)
    found = _Found(dataset)
    if out is not None:
        check_out(out, [root] if root.is_dir() else [], found.listed)
    totals, part = measure_listed(found.listed, workers)
    results = summarize(str(root), OBJECTS, found.listed, totals, part)
    objects = found.count()
    counts = {name: row["objects"] for name, row in objects["classes"].items()}
    noun = "image" if found.is_pixels else "object"
    results["odd"] += [*found.odd, *found.describe_boxes(), *describe_classes(counts, noun)]
    results["notes"] += dataset.notes
    results["objects"] = objects
    if out is not None:
        save_files(results, out, found.rows(totals))
    return results


@dataclass
class _Found:
    """The images that are there, with their objects; `listed` has the same order as `images`."""

    dataset: Dataset
    listed: Listed = field(default_factory=Listed)
    images: list[CocoImage] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = self.dataset.parts
        self.is_pixels = all(map(is_of_classes, parts.values()))
        self._labels: dict[str, list[str]] = {}
        for name, part in parts.items():
            self._add(name if len(parts) > 1 else "", check_part(part))
        if not self.images:
            raise UserError(f"{self.dataset.root}: none of its images is there; {self.odd[0]}")

    def _add(self, part: str, data: CocoData) -> None:
        here = [image for image in data.images if os.path.isfile(image.path)]
        gone = [image.path for image in data.images if not os.path.isfile(image.path)]
        if gone:
            of = f" of {part}" if part else ""
            self.odd.append(f"{counted(len(gone), 'image')}{of} missing, such as {gone[0]}")
        self._check_sizes(here)
        self.odd += data.notes
        self._labels[part] = data.classes
        self.names += [name for name in data.classes if name not in self.names]
        self.images += here
        self.listed.images += [image.path for image in here]
        self.listed.names += [_below(self.dataset.root, image.path) for image in here]
        self.listed.classes += [""] * len(here)
        self.listed.parts += [part] * len(here)

    def _check_sizes(self, images: Sequence[CocoImage]) -> None:
        wrong = [
            image
            for image in images
            if quick_size(image.path) not in (None, (image.height, image.width))
        ]
        if wrong:
            self.odd.append(
                f"{counted(len(wrong), 'image')} of another size than their annotations say, such "
                f"as {wrong[0].path}, not {wrong[0].width}x{wrong[0].height}"
            )

    def classes_of(self, index: int) -> list[str]:
        """Returns the class of each object of an image."""
        names = self._labels[self.listed.parts[index]]
        return [names[a.label - 1] for a in self.images[index].annotations]

    def count(self) -> dict[str, Any]:
        """Returns the numbers of objects; see `describe_objects`."""
        parts = parts_of(self.listed)
        rows: dict[str, Any] = {
            name: {"objects": dict.fromkeys(parts, 0), "images": 0, "area": 0.0}
            | dict.fromkeys(("small", "medium", "large"), 0)
            for name in self.names
        }
        for index, image in enumerate(self.images):
            part, classes = self.listed.parts[index], self.classes_of(index)
            for name, annotation in zip(classes, image.annotations, strict=True):
                row, area = rows[name], annotation.area
                row["objects"][part] += 1
                row["area"] += area
                row["small" if area < SMALL else "medium" if area < MEDIUM else "large"] += 1
            for name in set(classes):
                rows[name]["images"] += 1
        pixels = sum(image.width * image.height for image in self.images)
        for row in rows.values():
            share = row.pop("area") / pixels
            if self.is_pixels:
                row["share"] = share
        empty = Counter(
            part
            for part, image in zip(self.listed.parts, self.images, strict=True)
            if not image.annotations
        )
        return {
            "format": self.dataset.format,
            "count": sum(len(image.annotations) for image in self.images),
            "crowd": sum(a.crowd for image in self.images for a in image.annotations),
            "empty_images": {part: empty[part] for part in parts},
            "is_pixels": self.is_pixels,
            "classes": rows,
        }

    def describe_boxes(self) -> list[str]:
        """Returns lines about tiny objects and objects that stand twice."""
        if self.is_pixels:
            return []
        tiny, twice = [], []
        for index, image in enumerate(self.images):
            for a in image.annotations:
                tiny += [index] * (min(a.box[2] - a.box[0], a.box[3] - a.box[1]) < _TINY)
            boxes = [(a.label, a.box) for a in image.annotations]
            twice += [index] * (len(boxes) - len(set(boxes)))
        return [
            f"{counted(len(places), 'object')} {what}, such as in {self.listed.names[places[0]]}"
            for places, what in (
                (tiny, f"with a shorter side below {_TINY} pixels"),
                (twice, "with the class and box of another one in the same image"),
            )
            if places
        ]

    def rows(self, totals: Totals) -> dict[str, list[Cell]]:
        """Returns pictures of each class for the sheet, with the objects drawn."""
        members: dict[str, list[int]] = {name: [] for name in self.names}
        for index in np.flatnonzero(totals.readable).tolist():
            for name in set(self.classes_of(index)):
                members[name].append(index)
        return {
            name: [self._cell(index, name) for index in spread_evenly(own)]
            for name, own in members.items()
            if own
        }

    def _cell(self, index: int, name: str) -> Cell:
        image, is_own = self.images[index], [other == name for other in self.classes_of(index)]
        own = sum(is_own)
        place = " ".join(filter(None, (self.listed.parts[index], name)))
        line = place if self.is_pixels else f"{place}: {own} of {len(is_own)}"
        paint = partial(_paint, objects=image, is_own=is_own, is_pixels=self.is_pixels)
        return Cell(str(image.path), (image.path.name, line), None, paint)


def _below(root: Path, path: Path) -> str:
    return os.path.relpath(path, root if root.is_dir() else root.parent).replace(os.sep, "/")


def _paint(
    image: Image.Image, objects: CocoImage, is_own: Sequence[bool], is_pixels: bool
) -> Image.Image:
    """Draws the boxes of an image, or colours the pixels of the row's class."""
    if is_pixels:
        painted = image.copy()
        for annotation, own in zip(objects.annotations, is_own, strict=True):
            size = objects.height, objects.width
            if own and size == (image.height, image.width):
                mask = decode_runs(annotation.segmentation["counts"], *size)
                painted.paste(_OWN, mask=Image.fromarray(mask * np.uint8(255)))
        return Image.blend(image, painted, 0.5)
    picture = image.copy()
    draw, width = ImageDraw.Draw(picture), max(1, round(2 * max(image.size) / SIDE))
    for own in (False, True):  # the row's class on top
        for annotation, mine in zip(objects.annotations, is_own, strict=True):
            if mine == own:
                x1, y1, x2, y2 = annotation.box  # the last pixel of an object is at x2 - 1
                corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
                draw.rectangle(corners, outline=_OWN if own else _OTHER, width=width)
    return picture
