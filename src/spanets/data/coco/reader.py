"""Reads annotations in COCO's format, and checks all that a later step would trust.

A file that contradicts itself is refused, and the line says where. What can be left out without
changing what the rest means is left out and counted, for one line of `CocoData.notes`: boxes that
are empty or outside their image, and annotations of images that the file does not list.

Format: https://cocodataset.org/#format-data, "object detection".
"""

import json
import math
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from spanets.data.coco.objects import Annotation, CocoData, CocoImage, mask_of, to_xywh
from spanets.data.coco.rle import decode_runs
from spanets_runtime.errors import UserError
from spanets_runtime.images import MAX_PIXELS

# COCO's own boxes leave their images by roundings of this size, in pixels.
TOLERANCE = 1.0

# Whole numbers that are exact in every reader's arithmetic.
MAX_NUMBER = 2**53


def read_coco(path: Path, folder: Path) -> CocoData:
    """Reads and checks an annotation file.

    Args:
        path: The file.
        folder: That its file names are relative to; the images need not be there.

    Raises:
        UserError: no such file, no JSON, a missing key, a value that is none of its kind, an id
            given twice, an unknown category, a mask of another size than its image, or a file name
            that leaves the folder.
    """
    return _Reader(path, folder).read()


class _Reader:
    """Reads one file; counts what it leaves out."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.counts: dict[str, list[int]] = {}

    def read(self) -> CocoData:
        content = self._load()
        lists = {key: self._list(content, key) for key in ("images", "categories", "annotations")}
        categories = [self._category(*pair) for pair in enumerate(lists["categories"])]
        self._check_unique("categories", "id", [number for number, _ in categories])
        self._check_unique("categories", "name", [name for _, name in categories])
        images = [self._image(*pair) for pair in enumerate(lists["images"])]
        self._check_unique("images", "id", [image.id for image in images])
        found = self._annotations(
            lists["annotations"],
            {image.id: image for image in images},
            {number: label for label, (number, _) in enumerate(categories, start=1)},
        )
        return CocoData(
            [replace(image, annotations=tuple(found[image.id])) for image in images],
            [name for _, name in categories],
            [number for number, _ in categories],
            self._notes(),
            str(self.path),
        )

    def _load(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_bytes())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise UserError(f"{self.path}: is not JSON ({where}: {error.msg})") from None
        except (UnicodeDecodeError, RecursionError, ValueError) as error:
            raise UserError(f"{self.path}: is not JSON ({error})") from None
        if not isinstance(content, dict):
            raise self._refuse("the file", "holds no keys; it must have images and annotations")
        return content

    def _list(self, content: dict[str, Any], key: str) -> list[Any]:
        if not isinstance(content.get(key), list):
            raise self._refuse("the file", f"has no list of {key}")
        if not content[key] and key != "annotations":
            raise self._refuse("the file", f"has an empty list of {key}")
        return content[key]

    def _category(self, index: int, entry: Any) -> tuple[int, str]:
        where = f"categories[{index}]"
        return self._field(entry, "id", int, where), self._field(entry, "name", str, where)

    def _image(self, index: int, entry: Any) -> CocoImage:
        where = f"images[{index}]"
        number = self._field(entry, "id", int, where)
        width = self._field(entry, "width", int, where)
        height = self._field(entry, "height", int, where)
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            raise self._refuse(where, f"is {width}x{height} pixels, of 1 to {MAX_PIXELS} in all")
        name = self._field(entry, "file_name", str, where)
        return CocoImage(number, self.folder / self._safe(name, where), width, height, ())

    def _safe(self, name: str, where: str) -> str:
        for path in (PurePosixPath(name), PureWindowsPath(name)):
            if path.is_absolute() or path.drive or ".." in path.parts:
                raise self._refuse(where, f"has the file_name {name!r}, which leaves the folder")
        if not PurePosixPath(name).parts or "\0" in name:
            raise self._refuse(where, f"has the file_name {name!r}, which names no file")
        return name

    def _annotations(
        self, entries: list[Any], images: dict[int, CocoImage], labels: dict[int, int]
    ) -> dict[int, list[Annotation]]:
        found: dict[int, list[Annotation]] = {number: [] for number in images}
        numbers = []
        for index, entry in enumerate(entries):
            where = f"annotations[{index}]"
            numbers.append(self._field(entry, "id", int, where))
            category = self._field(entry, "category_id", int, where)
            if category not in labels:
                raise self._refuse(where, f"has the category_id {category}, which is not listed")
            image = images.get(self._field(entry, "image_id", int, where))
            if image is None:
                self._count("of an image that is not listed", numbers[-1])
                continue
            annotation = self._annotation(entry, where, image, labels[category])
            if annotation is not None:
                found[image.id].append(annotation)
        self._check_unique("annotations", "id", numbers)
        return found

    def _annotation(
        self, entry: dict[str, Any], where: str, image: CocoImage, label: int
    ) -> Annotation | None:
        number = entry["id"]
        box = self._box(entry, where, image)
        if box is None:
            return None
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise self._refuse(where, f"has iscrowd {crowd!r}, must be 0 or 1")
        segmentation = entry.get("segmentation") or None
        if segmentation is not None:
            self._check_segmentation(segmentation, where, image)
        found = Annotation(number, label, box, 0, bool(crowd), segmentation)
        return replace(found, area=self._area(entry, where, found, image))

    def _box(self, entry: Any, where: str, image: CocoImage) -> tuple[Any, ...] | None:
        """Returns the box, within its image but for roundings, or None for one to be skipped."""
        box = self._field(entry, "bbox", list, where)
        if len(box) != 4 or not all(_is_number(value) for value in box):
            raise self._refuse(where, f"has the bbox {box}, must be x, y, width and height")
        x, y, width, height = (float(value) for value in box)
        if width <= 0 or height <= 0:
            self._count("with an empty box", entry["id"])
            return None
        corners = (x, y, x + width, y + height)
        limits = (image.width, image.height) * 2
        inside = tuple(
            min(max(value, 0.0), limit) for value, limit in zip(corners, limits, strict=True)
        )
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            self._count("with a box outside the image", entry["id"])
            return None
        if max(abs(a - b) for a, b in zip(inside, corners, strict=True)) > TOLERANCE:
            self._count("clipped", entry["id"])
            return inside
        return corners

    def _check_segmentation(self, shape: Any, where: str, image: CocoImage) -> None:
        if isinstance(shape, dict):
            self._check_runs(shape, where, image)
        elif not isinstance(shape, list):
            raise self._refuse(where, "has a segmentation that is no polygons and no run lengths")
        else:
            for polygon in shape:
                self._check_polygon(polygon, where, image)

    def _check_runs(self, shape: dict[str, Any], where: str, image: CocoImage) -> None:
        size, counts = shape.get("size"), shape.get("counts")
        if size != [image.height, image.width]:
            raise self._refuse(
                where, f"has a mask of size {size}, its image {[image.height, image.width]}"
            )
        if not isinstance(counts, list | str):
            raise self._refuse(where, "has a mask without counts")
        try:
            decode_runs(counts, image.height, image.width)
        except ValueError as error:
            raise self._refuse(where, f"has a damaged mask: {error}") from None

    def _check_polygon(self, polygon: Any, where: str, image: CocoImage) -> None:
        if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
            raise self._refuse(where, "has a segmentation that is no list of polygons")
        # Four numbers would be taken for a box by COCO's tools.
        if len(polygon) < 6 or len(polygon) % 2:
            raise self._refuse(
                where, f"has a polygon of {len(polygon)} numbers, must be pairs, three or more"
            )
        # A bound, because filling takes memory for every pixel along an edge.
        x, y = np.array(polygon[0::2]), np.array(polygon[1::2])
        if not (_near(x, image.width) and _near(y, image.height)):
            raise self._refuse(where, "has a polygon far outside its image")

    def _area(self, entry: Any, where: str, found: Annotation, image: CocoImage) -> float:
        area = entry.get("area")
        if area is not None:
            if not _is_number(area) or area < 0:
                raise self._refuse(where, f"has the area {area!r}, must be a number of 0 or more")
            return float(area)
        if found.segmentation is not None:
            return float(mask_of(found, image.height, image.width).sum())
        _, _, width, height = to_xywh(found.box)
        return width * height

    def _field(self, entry: Any, key: str, kind: type, where: str) -> Any:
        if not isinstance(entry, dict):
            raise self._refuse(where, "is no object with keys")
        if key not in entry:
            raise self._refuse(where, f"has no {key}")
        if type(entry[key]) is not kind or (kind is int and abs(entry[key]) > MAX_NUMBER):
            noun = {int: "a whole number", str: "a text", list: "a list"}[kind]
            raise self._refuse(where, f"has the {key} {entry[key]!r}, must be {noun}")
        return entry[key]

    def _check_unique(self, section: str, key: str, values: list[Any]) -> None:
        first: dict[Any, int] = {}
        for index, value in enumerate(values):
            if first.setdefault(value, index) != index:
                raise self._refuse(
                    f"{section}[{index}]", f"has the same {key} as [{first[value]}]: {value!r}"
                )

    def _refuse(self, where: str, problem: str) -> UserError:
        return UserError(f"{self.path}: {where} {problem}")

    def _count(self, what: str, number: int) -> None:
        self.counts.setdefault(what, []).append(number)

    def _notes(self) -> tuple[str, ...]:
        """Says on one line what was skipped and clipped, with the first id of each."""
        clipped = self.counts.pop("clipped", [])
        parts = [
            f"skipped {len(ids)} {what} (id {ids[0]}{', …' if len(ids) > 1 else ''})"
            for what, ids in self.counts.items()
        ]
        if clipped:
            parts.append(f"clipped {len(clipped)} that reach beyond their image (id {clipped[0]})")
        return (f"{self.path}: of the annotations, {', '.join(parts)}",) if parts else ()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER and math.isfinite(value)


def _near(values: Any, side: int) -> bool:
    """Tells whether coordinates are at most one image away from it."""
    return bool(values.min() >= -side and values.max() <= 2 * side)
