"""Reads annotations in COCO's format, and validates them.

An inconsistent file is refused, with all kinds of faults in one message. Harmless entries are
skipped and counted in a note: boxes that are empty or outside their image, polygons without an
area, and annotations of images that the file does not list.

Format: https://cocodataset.org/#format-data, "object detection".
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from spanets.formats.coco.faults import Fault, Faults, show_value
from spanets.formats.coco.json_file import read_annotations, read_object
from spanets.formats.coco.keypoints import Keypoints, read_names, read_points
from spanets.formats.coco.names import FileNames, check_name, identify
from spanets.formats.coco.objects import Annotation, CocoData, CocoImage, area_of, to_xywh
from spanets.formats.coco.plausible import Boxes
from spanets.formats.coco.segmentations import MAX_NUMBER, bounds, is_number, read_segmentation
from spanets_runtime.errors import UserError
from spanets_runtime.images import MAX_PIXELS

# COCO's own boxes exceed their images by rounding errors up to this size in pixels.
TOLERANCE = 1.0

# Largest length of a class name in bytes.
MAX_NAME = 1000

T = TypeVar("T")


def read_coco(path: Path, folder: Path, keypoints: bool = False) -> CocoData:
    """Reads and checks an annotation file.

    Args:
        path: The annotation file.
        folder: The folder of the image files, which need not exist.
        keypoints: Whether to read and check keypoints as well.

    Raises:
        UserError: the file is missing or not JSON; or it has a missing key, an invalid value, a
            repeated id, an unknown category, a mask of another size than its image, a file name
            that leaves the folder, boxes that are not in pixels, or differing keypoints.
    """
    return _Reader(path, folder, keypoints).read(read_annotations(path))


def check_coco(
    content: dict[str, Any], source: Path, folder: Path, keypoints: bool = False
) -> CocoData:
    """Checks annotations in COCO's format that were read from any file.

    Args:
        content: Lists of images, categories and annotations.
        source: The file or folder they are from, for messages.
        folder: The folder of the image files.
        keypoints: Whether to read and check keypoints as well.

    Raises:
        UserError: see `read_coco`.
    """
    return _Reader(source, folder, keypoints).read(content)


def read_listing(path: Path) -> CocoData:
    """Reads the images and classes of a file, ignoring annotations.

    Raises:
        UserError: see `read_coco`.
    """
    return _Reader(path, Path()).read(read_object(path), annotated=False)


class _Reader:
    """Reads one file, and counts skipped entries and faults."""

    def __init__(self, path: Path, folder: Path, has_keypoints: bool = False) -> None:
        self.path = path
        self.has_keypoints = has_keypoints
        self.keypoints: Keypoints | None = None
        self.faults = Faults(path)
        self.names = FileNames(folder)
        self.boxes = Boxes()
        self.counts: dict[str, list[int]] = {}

    def read(self, content: dict[str, Any], annotated: bool = True) -> CocoData:
        keys = ("images", "categories", "annotations") if annotated else ("images", "categories")
        lists = {key: self._list(content, key) for key in keys}
        categories = self._each("categories", lists["categories"], self._category)
        self._check_unique("categories", "id", {i: number for i, (number, _) in categories.items()})
        self._check_unique("categories", "name", {i: name for i, (_, name) in categories.items()})
        if self.has_keypoints:
            self._name_keypoints(lists["categories"])
        images = self._each("images", lists["images"], self._image)
        self._check_unique("images", "id", {i: image.id for i, image in images.items()})
        found = self._annotations(lists, list(images.values()), list(categories.values()))
        with self.faults.of("the file"):
            self.boxes.check()
        self.faults.check()
        return CocoData(
            [replace(image, annotations=tuple(found[image.id])) for image in images.values()],
            [name for _, name in categories.values()],
            [number for number, _ in categories.values()],
            self._notes(list(images.values())),
            str(self.path),
            self.keypoints,
        )

    def _name_keypoints(self, categories: list[Any]) -> None:
        """Reads the keypoints of the categories, of which all that have some have the same."""
        named = [entry if isinstance(entry, dict) else {} for entry in categories]
        found = self._each("categories", named, read_names)
        known = {index: names for index, names in found.items() if names is not None}
        for index, names in known.items():
            first = next(iter(known))
            with self.faults.of(f"categories[{index}]"):
                if names.names != known[first].names:
                    raise Fault("other keypoints", f"has other keypoints than [{first}]")
        self.keypoints = next(iter(known.values()), None)

    def _points(self, entry: dict[str, Any]) -> tuple[float, ...] | None:
        """Returns the keypoints of an annotation, if it has and is to have some."""
        if not self.has_keypoints or not entry.get("keypoints"):
            return None
        count = len(self.keypoints.names) if self.keypoints else None
        points = read_points(entry["keypoints"], count)
        self.keypoints = self.keypoints or Keypoints.unnamed(len(points) // 3)
        return points

    def _list(self, content: dict[str, Any], key: str) -> list[Any]:
        if not isinstance(content.get(key), list):
            raise UserError(f"{self.path}: the file has no list of {key}")
        if not content[key] and key != "annotations":
            raise UserError(f"{self.path}: the file has an empty list of {key}")
        return content[key]

    def _each(self, section: str, entries: list[Any], read: Callable[[Any], T]) -> dict[int, T]:
        """Returns the valid entries by index, as read by `read`."""
        found = {}
        for index, entry in enumerate(entries):
            with self.faults.of(f"{section}[{index}]"):
                found[index] = read(entry)
        return found

    def _category(self, entry: Any) -> tuple[int, str]:
        name = _field(entry, "name", str)
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            raise Fault("name", f"has the name {show_value(name)}, which is no text") from None
        if length > MAX_NAME:
            raise Fault("name length", f"has a name of {length} bytes, of at most {MAX_NAME}")
        return _field(entry, "id", int), name

    def _image(self, entry: Any) -> CocoImage:
        number, width, height = (_field(entry, key, int) for key in ("id", "width", "height"))
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            problem = f"is {width}x{height} pixels, of 1 to {MAX_PIXELS} in all"
            raise Fault("pixels", problem)
        name = _field(entry, "file_name", str)
        check_name(name)
        return CocoImage(number, self.names.find(name), width, height, ())

    def _annotations(
        self,
        lists: dict[str, list[Any]],
        images: list[CocoImage],
        categories: list[tuple[int, str]],
    ) -> dict[int, list[Annotation]]:
        found: dict[int, list[Annotation]] = {image.id: [] for image in images}
        entries = _Entries(
            {image.id: image for image in images},
            {number: label for label, (number, _) in enumerate(categories, start=1)},
            # Including invalid ones, so that their annotations are not reported as well.
            *(_numbers(lists[section]) for section in ("images", "categories")),
        )

        def read(entry: Any) -> int:
            number = _field(entry, "id", int)
            image, label = entries.find(entry)
            if image is None:
                self._count("of an image that is not listed", number)
            elif label is not None:
                annotation = self._annotation(entry, image, label)
                found[image.id] += [annotation] if annotation is not None else []
            return number

        numbers = self._each("annotations", lists.get("annotations", []), read)
        self._check_unique("annotations", "id", numbers)
        return found

    def _annotation(self, entry: dict[str, Any], image: CocoImage, label: int) -> Annotation | None:
        number = entry["id"]
        box = self._box(entry, image)
        if box is None:
            return None
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise Fault("iscrowd", f"has iscrowd {show_value(crowd)}, must be 0 or 1")
        shape, complete = read_segmentation(entry.get("segmentation"), image.height, image.width)
        area = _area(entry)
        if not complete:
            self._count("polygons", number)
        if isinstance(shape, list) and not crowd:
            self.boxes.add_polygons(box, bounds(shape))
        points = self._points(entry)
        found = Annotation(number, label, box, area or 0.0, bool(crowd), shape, points)
        return found if area is not None else replace(found, area=_measure(found, image))

    def _box(self, entry: Any, image: CocoImage) -> tuple[Any, ...] | None:
        """Returns the box, clipped to its image except for rounding errors, or None to skip it."""
        box = _field(entry, "bbox", list)
        if len(box) != 4 or not all(map(is_number, box)):
            raise Fault("bbox", f"has the bbox {show_value(box)}, must be x, y, width and height")
        x, y, width, height = (float(value) for value in box)
        if width <= 0 or height <= 0:
            self._count("with an empty box", entry["id"])
            return None
        self.boxes.add([x, y, width, height], image.width, image.height)
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

    def _check_unique(self, section: str, key: str, values: dict[int, Any]) -> None:
        first: dict[Any, int] = {}
        for index, value in values.items():
            with self.faults.of(f"{section}[{index}]"):
                if first.setdefault(value, index) != index:
                    problem = f"has the same {key} as [{first[value]}]: {show_value(value)}"
                    raise Fault(f"same {key}", problem)

    def _count(self, what: str, number: int) -> None:
        self.counts.setdefault(what, []).append(number)

    def _notes(self, images: list[CocoImage]) -> tuple[str, ...]:
        lines = [self._describe_counts(), self.names.note(self.path)]
        lines += [
            f"{self.path}: {line}" for line in (*self.boxes.notes(), *_describe_twice(images))
        ]
        return tuple(filter(None, lines))

    def _describe_counts(self) -> str:
        """Returns a note on skipped and changed annotations, with the first id of each kind."""
        counts = {what: (len(ids), _first(ids)) for what, ids in self.counts.items()}
        clipped, polygons = counts.pop("clipped", None), counts.pop("polygons", None)
        parts = [f"skipped {count} {what} {ids}" for what, (count, ids) in counts.items()]
        if clipped:
            parts.append(f"clipped {clipped[0]} that reach beyond their image {clipped[1]}")
        if polygons:
            parts.append(f"left out polygons without an area of {polygons[0]} {polygons[1]}")
        return f"{self.path}: of the annotations, {', '.join(parts)}" if parts else ""


class _Entries:
    """The images and categories that annotations may refer to."""

    def __init__(
        self,
        images: dict[int, CocoImage],
        labels: dict[int, int],
        listed_images: set[int],
        listed_categories: set[int],
    ) -> None:
        self.images = images
        self.labels = labels
        self.listed_images = listed_images
        self.listed_categories = listed_categories

    def find(self, entry: dict[str, Any]) -> tuple[CocoImage | None, int | None]:
        """Returns the image and label of an annotation.

        The image is None if it is not listed or invalid, the label if the category is invalid.
        """
        category, number = _field(entry, "category_id", int), _field(entry, "image_id", int)
        if category not in self.listed_categories:
            raise Fault("category_id", f"has the category_id {category}, which is not listed")
        return self.images.get(number), self.labels.get(category)


def _field(entry: Any, key: str, kind: type) -> Any:
    if not isinstance(entry, dict):
        raise Fault("no object", "is no object with keys")
    if key not in entry:
        raise Fault(f"no {key}", f"has no {key}")
    value: Any = entry[key]
    if type(value) is not kind or (isinstance(value, int) and abs(value) > MAX_NUMBER):
        noun = {int: "a whole number up to 2^53", str: "a text", list: "a list"}[kind]
        raise Fault(key, f"has the {key} {show_value(value)}, must be {noun}")
    return value


def _numbers(entries: list[Any]) -> set[int]:
    """Returns the ids of all entries, valid or not."""
    numbers = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return {number for number in numbers if type(number) is int}


def _area(entry: dict[str, Any]) -> float | None:
    area = entry.get("area")
    if area is None:
        return None
    if not is_number(area) or area < 0:
        raise Fault("area", f"has the area {show_value(area)}, must be a number of 0 or more")
    return float(area)


def _measure(found: Annotation, image: CocoImage) -> float:
    """Computes the area of an object if the file does not give it."""
    if found.segmentation is not None:
        return float(area_of(found.segmentation, image.height, image.width))
    _, _, width, height = to_xywh(found.box)
    return width * height


def _describe_twice(images: list[CocoImage]) -> list[str]:
    """Returns a note on files that are listed more than once."""
    by_file: dict[Any, list[CocoImage]] = {}
    for image in images:
        by_file.setdefault(identify(image.path), []).append(image)
    twice = [same for same in by_file.values() if len(same) > 1]
    if not twice:
        return []
    ids, names = [image.id for image in twice[0]], {image.path.name: None for image in twice[0]}
    return [
        f"{len(twice)} image file{'s are' if len(twice) > 1 else ' is'} listed under several ids "
        f"({', '.join(names)}: {', '.join(map(str, ids))}), each with a part of the objects; "
        "merge them, or what is found of the others counts as wrong"
    ]


def _first(ids: list[int]) -> str:
    return f"(id {ids[0]}{', …' if len(ids) > 1 else ''})"
