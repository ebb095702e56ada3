"""A data set as COCO's objects, part by part, and the collector that readers of formats fill."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from spanets.data.class_lists import clean_name, read_names
from spanets.formats.coco.faults import Fault, Faults, show_value
from spanets.formats.coco.objects import area_of
from spanets.formats.coco.rle import decode_runs
from spanets.formats.coco.segmentations import bounds, is_number
from spanets.formats.image_finder import Guess
from spanets.formats.part_folders import sort_parts
from spanets_runtime.decoding.pixels import upright
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, decode_image
from spanets_runtime.sizes import quick_size

Content = dict[str, Any]
"""An object in COCO's format: lists of images, categories and annotations."""

MAX_CLASSES_SHOWN = 10

_MISSING = "images that are missing"
_TAKEN = "images that are missing, and whose names only files of other entries have, left out"


@dataclass(frozen=True)
class Part:
    """The images of a part.

    Attributes:
        content: Images, categories and annotations in COCO's format.
        folder: Folder to which the file names in it are relative.
        source: The file or folder that it was read from, for messages.
    """

    content: Content
    folder: Path
    source: Path


@dataclass(frozen=True)
class Dataset:
    """A data set that was read from any format.

    Attributes:
        format: Name of the format, as people call it.
        root: The folder of the data set.
        parts: Parts by name: "train", "val" and "test", or names of their own.
        notes: Messages about what was left out or changed, each with a count.
    """

    format: str
    root: Path
    parts: dict[str, Part]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns a line with the format, the number of images and objects, and the classes."""
        counts = []
        for name, part in self.parts.items():
            images, objects = (len(part.content[key]) for key in ("images", "annotations"))
            counts.append(f"{name} {images} images with {objects} objects")
        first = next(iter(self.parts.values())).content
        names = [f"{entry['id']} {show_value(entry['name'])}" for entry in first["categories"]]
        more = f" and {len(names) - MAX_CLASSES_SHOWN} more" if names[MAX_CLASSES_SHOWN:] else ""
        classes = ", ".join(names[:MAX_CLASSES_SHOWN]) + more
        return f"{self.root}: {self.format}; {', '.join(counts)}; classes {classes}"


@dataclass
class Collector:
    """Collects the images and objects of a data set, and counts what is left out.

    Attributes:
        format: Name of the format.
        root: The folder of the data set; no file outside it is ever read.
        classes: Names of the classes in order, or None to take those of the objects in
            alphabetical order.
        first: Category id of the first class.
    """

    format: str
    root: Path
    classes: Sequence[str] | None = None
    first: int = 1
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults = Faults(self.root)
        self._parts: dict[str, Content] = {}
        self._left_out: dict[str, list[str]] = {}
        self._numbers: set[int] = set()
        self._paths: dict[int, Path | None] = {}
        self._guesses: dict[int, Path] = {}
        self._objects, self._free = 0, 1

    def count(self, what: str, where: object) -> None:
        """Counts something that is left out or changed; `finish` tells each kind in a note."""
        self._left_out.setdefault(what, []).append(str(where))

    def add_image(
        self,
        part: str,
        path: Path | Guess | None,
        size: tuple[int, int] | None = None,
        number: int | None = None,
        name: str | None = None,
    ) -> Content | None:
        """Adds an image file, and returns its entry, or None if it is left out.

        Args:
            part: Name of the part.
            path: The file, within the root; None if it is missing. A guess counts only if no other
                entry has the file.
            size: Width and height that the format states, or None to read them from the file.
            number: Id in the format, or None for the next free one.
            name: Name in the format, for a missing file.
        """
        if path is None and (size is None or name is None):
            self.count(_MISSING, name)
            return None
        guess = path if isinstance(path, Guess) else None
        if isinstance(path, Guess):
            path = path.path
        if size is None:
            assert path is not None
            try:
                size = _read_size(path)
            except ImageError as error:
                self.count("images that cannot be read", error)
                return None
        if number is None or number in self._numbers:
            if number is not None:
                self.count("image ids that stand twice, replaced by others", number)
            number = self._free
        self._numbers.add(number)
        self._free = max(self._free, number + 1)
        self._paths[number] = path
        if guess is not None:
            self._guesses[number] = guess.path
        shown = path.relative_to(self.root).as_posix() if path is not None else name
        entry = {"id": number, "file_name": shown, "width": size[0], "height": size[1]}
        self._part(part)["images"].append(entry)
        return entry

    def add_object(
        self,
        part: str,
        image: Content,
        name: str,
        box: Sequence[float] | None = None,
        shape: Any = None,
        **more: Any,
    ) -> None:
        """Adds an object to an image of the part.

        Args:
            part: Name of the part.
            image: The image's entry.
            name: Name of the class.
            box: x1, y1, x2, y2 in pixels; None for the box around the shape.
            shape: Polygons or run lengths, or None.
            more: Other keys of COCO, or of the format, to keep.
        """
        values = (
            [*(box or []), *(v for p in shape for v in p)] if _is_polygons(shape) else box or []
        )
        if not all(is_number(value) for value in values):
            raise Fault("coordinates", f"has coordinates that are no numbers: {show_value(values)}")
        if box is None:
            box = bounds(shape) if _is_polygons(shape) else _bounds_of_runs(shape)
        self._objects += 1
        x1, y1, x2, y2 = (float(value) for value in box)
        entry = {
            "id": self._objects,
            "image_id": image["id"],
            "category_id": clean_name(name) or name,  # replaced by the number at the end
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            **({"segmentation": shape} if shape else {}),
            **more,
        }
        if shape:
            entry.pop("area")  # the reader measures it
            if not _is_polygons(shape):
                entry["area"] = area_of(shape, image["height"], image["width"])
        self._part(part)["annotations"].append(entry)

    def finish(self) -> Dataset:
        """Returns the data set.

        Raises:
            UserError: there are faults, or no image.
        """
        self.faults.check()
        self._settle_guesses()
        parts = {name: part for name, part in self._parts.items() if part["images"]}
        if not parts:
            reasons = "; ".join(self._describe())
            raise UserError(f"{self.root}: {self.format} without an image ({reasons or 'empty'})")
        seen = {a["category_id"] for part in parts.values() for a in part["annotations"]}
        names = list(self.classes) if self.classes is not None else sorted(seen)
        if self.classes is None:
            self.notes.append(
                f"{self.root}: no file lists the classes; their order is alphabetical"
            )
        unlisted = sorted(seen - set(names))
        if unlisted:
            self.notes.append(
                f"{self.root}: {len(unlisted)} classes of objects are in no list, added at the end "
                f"({', '.join(map(show_value, unlisted[:5]))})"
            )
        numbers = {name: i for i, name in enumerate([*names, *unlisted], start=self.first)}
        categories = [{"id": number, "name": name} for name, number in numbers.items()]
        for part in parts.values():
            for annotation in part["annotations"]:
                annotation["category_id"] = numbers[annotation["category_id"]]
            part["categories"] = categories
        return Dataset(
            self.format,
            self.root,
            {name: self._as_part(parts[name]) for name in sort_parts(parts)},
            (*self.notes, *self._describe()),
        )

    def _settle_guesses(self) -> None:
        """Keeps guessed files that no other entry has; the other entries' images are missing."""
        claims = Counter(self._paths.values())
        lost = {number for number, path in self._guesses.items() if claims[path] > 1}
        for number, path in self._guesses.items():
            what = _TAKEN if number in lost else "images found in another folder, by their names"
            self.count(what, path.relative_to(self.root).as_posix())
        for content in self._parts.values():
            content["images"] = [i for i in content["images"] if i["id"] not in lost]
            kept = [a for a in content["annotations"] if a["image_id"] not in lost]
            content["annotations"] = kept

    def _as_part(self, content: Content) -> Part:
        """Makes file names relative to the nearest common folder of the part's images."""
        paths = {image["id"]: self._paths.get(image["id"]) for image in content["images"]}
        parents = {str(path.parent) for path in paths.values() if path is not None}
        folder = Path(os.path.commonpath(parents)) if parents else self.root
        for image in content["images"]:
            path = paths[image["id"]]
            image["file_name"] = (
                PurePosixPath(image["file_name"].replace("\\", "/")).name
                if path is None
                else path.relative_to(folder).as_posix()
            )
        return Part(content, folder, self.root)

    def _part(self, name: str) -> Content:
        return self._parts.setdefault(name, {"images": [], "annotations": []})

    def _describe(self) -> list[str]:
        return [
            f"{self.root}: {what}: {len(places)} (first: {places[0]})"
            for what, places in self._left_out.items()
        ]


def list_classes(root: Path, *names: str) -> list[str] | None:
    """Returns the class names in the first of these files that is there, or None."""
    path = next((root / name for name in names if os.path.isfile(root / name)), None)
    return None if path is None else read_names(path).names


def number_of(text: Any, what: str) -> float:
    """Returns a finite number that a file holds, as a text or a number.

    Raises:
        Fault: it is no number.
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not is_number(value):
        raise Fault(f"{what} is no number", f"has {what} {show_value(text)}, must be a number")
    return value


_WHOLE = re.compile(r"[0-9]{1,15}")


def whole_number(text: Any, what: str) -> int:
    """Returns a whole number of 0 or more that a file holds.

    Raises:
        Fault: it is none.
    """
    if not _WHOLE.fullmatch(str(text).strip()):
        raise Fault(f"{what} is no number", f"has {what} {show_value(text)}, must be 0 or more")
    return int(str(text))


def _read_size(path: Path) -> tuple[int, int]:
    """Returns width and height of an image, upright."""
    found = quick_size(path)
    if found is None:
        decoded = decode_image(path)
        width, height = upright(decoded.image, decoded.orientation).size
        return width, height
    return found[1], found[0]


def _is_polygons(shape: Any) -> bool:
    return isinstance(shape, list) and bool(shape)


def _bounds_of_runs(shape: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the box around the pixels of run lengths."""
    mask = decode_runs(shape["counts"], *shape["size"])
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
