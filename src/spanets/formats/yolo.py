"""YOLO's format, as Ultralytics, Roboflow, Label Studio and CVAT write it.

    data.yaml                      path, train, val, test: folders, lists of them, or .txt files
    images/train/a.jpg             names: the classes, a list or {0: cat, 1: dog}
    labels/train/a.txt             a line an object, as shares of the image's width and height:
                                       class x y width height        centre and size of a box
                                       class x1 y1 x2 y2 x3 y3 ...   a polygon, or four corners
                                       class x y w h px py v ...     a box with key points (pose)

Without `data.yaml`, `classes.txt` or `obj.names` names the classes; see `darknet` for `obj.data`.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from spanets.data.class_lists import clean_name
from spanets.data.sources.parts import part_of
from spanets.formats.coco.faults import Fault, show_value
from spanets.formats.darknet import find_darknet, read_darknet
from spanets.formats.dataset import (
    Collector,
    Content,
    Dataset,
    list_classes,
    number_of,
    whole_number,
)
from spanets.formats.part_folders import describe_beside, part_folders
from spanets.recipe.yaml_text import load_yaml
from spanets_runtime.errors import UserError
from spanets_runtime.listing import describe_left_out, list_images
from spanets_runtime.progress import progress
from spanets_runtime.reading import read_text_file

NAME = "YOLO"
LOOKED_FOR = (
    "data.yaml with names, or labels/ beside images/ with classes.txt, or Darknet's obj.data"
)

MAX_LABELS = 2**26
"""Largest size of a label file in bytes."""

# Shares of the image up to this beyond 0 and 1 come from rounding.
ROUNDING = 1e-3

_LISTS = ("classes.txt", "obj.names")


def detect(root: Path) -> bool:
    """Whether a folder, or a YAML file, has this format."""
    return _find_config(root) is not None or _has_labels(root)


def read(path: Path) -> Dataset:
    """Reads a data set.

    Args:
        path: The folder, or its data.yaml.

    Raises:
        UserError: a class number is not named, coordinates are not within 0 and 1, a line is
            damaged, or there are no images.
    """
    config = _find_config(path)
    return _Reader(path if path.is_dir() else path.parent, config).read()


class _Reader:
    def __init__(self, root: Path, config: Path | None) -> None:
        self.root, self.config = root, config
        self.is_darknet = config is not None and config == find_darknet(config.parent)
        self.settings = _read_settings(config) if config else {}
        names = _read_names(self.settings, config) if config else list_classes(root, *_LISTS)
        assert names is not None
        self.names = names
        name = f"{NAME} (Darknet)" if self.is_darknet else NAME
        self.found = Collector(name, root, names, first=0)
        shape: Any = self.settings.get("kpt_shape")
        is_pose = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
        self.points: tuple[int, int] | None = (shape[0], shape[1]) if is_pose else None
        self.lengths: set[int] = set()
        self.quads = 0

    def read(self) -> Dataset:
        used: set[Path] = set()
        for part, images in self._parts():
            for path in progress(images, f"read {part}"):
                labels = _labels_of(path, self.root)
                used.add(labels)
                self._add(part, path, labels)
        if used and not any(map(os.path.isfile, used)):
            raise UserError(
                f"{self.root}: no image has a label file, such as {min(used)}; labels lie in a "
                "folder labels beside images, or beside each image"
            )
        folders = {path.parent for path in used}
        strays = [p for folder in folders for p in sorted(folder.glob("*.txt")) if p not in used]
        for stray in strays:
            if stray.name not in _LISTS and self._is_label(stray):
                self.found.count("label files without an image, left out", stray)
        if self.lengths == {8} and self.quads:
            self.found.notes.append(
                f"{self.root}: {self.quads} oriented boxes (four corners each) are read as the "
                "boxes around them; the corners are kept as polygons"
            )
        return self.found.finish()

    def _is_label(self, path: Path) -> bool:
        """Whether a text file is not a list of images."""
        return path.parent != self.root or path.stem not in ("train", "val", "test")

    def _add(self, part: str, path: Path, labels: Path) -> None:
        image = self.found.add_image(part, path)
        if image is None:
            return
        if not os.path.isfile(labels):
            self.found.count("images without a label file, taken as without objects", path)
            return
        seen: set[str] = set()
        for number, line in enumerate(read_text_file(labels, MAX_LABELS).splitlines(), start=1):
            text = " ".join(line.split())
            if not text:
                continue
            if text in seen:
                self.found.count("lines that stand twice, the second left out", labels)
                continue
            seen.add(text)
            where = f"{labels.relative_to(self.root).as_posix()} line {number}"
            with self.found.faults.of(_Where(where)):
                self._object(part, image, text.split())

    def _object(self, part: str, image: Content, words: list[str]) -> None:
        number = whole_number(words[0].removesuffix(".0"), "the class")
        if number >= len(self.names):
            raise Fault("class", f"has the class {number}, but there are {len(self.names)} classes")
        values = [number_of(word, "a coordinate") for word in words[1:]]
        length, more = len(values), {}
        if self.points is not None and length == 4 + self.points[0] * self.points[1]:
            more = self._key_points(values[4:], image)
            values = values[:4]
        elif length == 5:
            self.found.count("confidences in label files, left out", image["file_name"])
            values = values[:4]
        elif length != 4 and (length < 6 or length % 2):
            raise Fault("length", f"has {length} numbers after the class, must be 4, or 6 and more")
        self.lengths.add(length)
        _check_shares(values)
        width, height = image["width"], image["height"]
        name = self.names[number]
        if len(values) == 4:
            x, y, w, h = values
            box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, 0.0)
            self.found.add_object(part, image, name, (*box[:3], (y + h / 2) * height), **more)
            return
        self.quads += length == 8
        polygon = [value * (height if i % 2 else width) for i, value in enumerate(values)]
        self.found.add_object(part, image, name, None, [polygon])

    def _key_points(self, values: list[float], image: Content) -> dict[str, Any]:
        """Returns COCO's key points: x and y in pixels, and 0 absent, 1 hidden, 2 visible."""
        assert self.points is not None
        self.found.count("objects with key points, kept but used by no detector here", image["id"])
        count, size = self.points
        rows = [values[size * i : size * (i + 1)] for i in range(count)]
        points = [
            (row[0] * image["width"], row[1] * image["height"], int(row[2]) if size > 2 else 2)
            for row in rows
        ]
        number = sum(point[2] > 0 for point in points)
        return {"keypoints": [v for point in points for v in point], "num_keypoints": number}

    def _parts(self) -> Iterator[tuple[str, list[Path]]]:
        """Yields the parts with their image files."""
        if self.config is None:
            images = self.root / "images"
            parts = part_folders(images)
            self.found.notes += describe_beside(images, parts.values())
            for part, folder in parts.items():
                yield part, self._list(folder)
            return
        base = self._inside(self.settings.get("path") or ".", self.root, "path") or self.root
        for part in ("train", "val", "test"):
            given = self.settings.get(part)
            if given is None and part == "val":
                given = self.settings.get("valid")
            places = given if isinstance(given, list) else [given] if given else []
            found = [path for place in places for path in self._images(place, base, part)]
            if found:
                yield part, list(dict.fromkeys(found))

    def _images(self, given: Any, base: Path, part: str) -> list[Path]:
        place = self._inside(given, base, part)
        if place is None and part == "test":  # Roboflow names it even if there is none
            self.found.notes.append(
                f"{self.config}: test is {show_value(given)}, which is not there; no part for tests"
            )
            return []
        if place is None:
            raise UserError(
                f"{self.config}: {part} is {show_value(given)}, and {base} has no such folder or "
                "file; mend the path, or leave the part out"
            )
        if place.is_dir():
            return self._list(place)
        lines = [line.strip() for line in read_text_file(place, MAX_LABELS).splitlines()]
        found = []
        for line in filter(None, lines):
            path = self._inside(line, place.parent, part) or self._inside(line, base, part)
            if path is None:
                self.found.count(f"images that {place.name} lists are missing, left out", line)
            else:
                found.append(path)
        return found

    def _list(self, folder: Path) -> list[Path]:
        listing = list_images(folder)
        others = Counter({k: n for k, n in listing.left_out.items() if k not in (".txt", ".cache")})
        self.found.notes += describe_left_out(folder, others)
        return listing.images

    def _inside(self, given: Any, base: Path, key: str) -> Path | None:
        """Returns the existing path within the root that a path of the file means, or None.

        The paths of data.yaml are often those of another computer, or begin with `../`; then they
        are tried from the base folder, without what leads outside of it. The folder that names the
        part is kept: `images` alone is no stand-in for `../test/images`.
        """
        if not isinstance(given, str) or "\0" in given:
            raise UserError(f"{self.config}: {key} is {show_value(given)}, must be a path")
        parts = [p for p in PurePosixPath(given.replace("\\", "/")).parts if p not in ("/", ".")]
        inner = [part for part in parts if part != ".."]
        is_outside = len(inner) < len(parts) or os.path.isabs(given) or ":" in given
        is_outside |= self.is_darknet  # its paths begin in darknet's own folder
        tails = [inner[n:] for n in range(len(inner))] if is_outside else [inner]
        part = part_of(key)
        named = [n for n, name in enumerate(inner) if part is not None and part_of(name) == part]
        if named:
            tails = tails[: named[-1] + 1]
        for folder in dict.fromkeys((base, self.root)):
            for tail in tails:
                path = folder.joinpath(*tail)
                if os.path.exists(path) and _is_below(path, self.root):
                    if is_outside and key == "path":
                        self.found.count("paths that lead elsewhere, read within the folder", given)
                    return path
        if key == "path":
            self.found.count("paths that lead elsewhere, the folder is taken instead", given)
        return None


class _Where(str):
    """A place in a message; all places of label files are one kind for counting."""

    def partition(self, sep: str) -> tuple[str, str, str]:
        """Returns the same first part for all label files."""
        return ("labels", sep, "")


def _check_shares(values: list[float]) -> None:
    low, high = min(values), max(values)
    if low < -ROUNDING or high > 1 + ROUNDING:
        worst = high if high > 1 + ROUNDING else low
        raise Fault(
            "shares",
            f"has the coordinate {worst:g}, must be within 0 and 1: shares of the image's width "
            "and height",
        )


def _labels_of(image: Path, root: Path) -> Path:
    """Returns the label file of an image: the last folder `images` is `labels`, or beside it."""
    parts = list(image.relative_to(root).parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return root.joinpath(*parts).with_suffix(".txt")


def _is_below(path: Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _find_config(path: Path) -> Path | None:
    """Returns the file that names classes and parts, or None."""
    return _find_yaml(path) or find_darknet(path)


def _find_yaml(path: Path) -> Path | None:
    """Returns the YAML file with the classes, or None."""
    if path.is_file():
        return path if path.suffix in (".yaml", ".yml") and _is_config(path) else None
    named = [path / "data.yaml", path / "data.yml", path / "dataset.yaml"]
    others = sorted((*path.glob("*.yaml"), *path.glob("*.yml")))
    return next(
        (p for p in dict.fromkeys((*named, *others)) if p.is_file() and _is_config(p)), None
    )


def _is_config(path: Path) -> bool:
    try:
        lines = read_text_file(path, 2**18).splitlines()
    except UserError:
        return path.name == "data.yaml"
    keys = {line.partition(":")[0].strip() for line in lines if line[:1] not in (" ", "#")}
    return "names" in keys and bool(keys & {"train", "val", "valid", "test"})


def _has_labels(root: Path) -> bool:
    folders = root / "images", root / "labels"
    return all(map(os.path.isdir, folders)) and any(os.path.isfile(root / n) for n in _LISTS)


def _read_settings(path: Path) -> dict[str, Any]:
    if path.suffix not in (".yaml", ".yml"):
        return read_darknet(path)
    settings = load_yaml(read_text_file(path, 2**18), str(path))
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no keys; it must have names, train and val")
    return settings


def _read_names(settings: dict[str, Any], path: Path) -> list[str]:
    """Returns the class names in the order of their numbers."""
    names = settings.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(
                f"{path}: the numbers of names must be 0 to {len(names) - 1}, each once"
            )
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or any(isinstance(n, list | dict) for n in names):
        raise UserError(f"{path}: names is {show_value(names)}, must be a list of class names")
    if no_text := [name for name in names if name is None or isinstance(name, bool)]:
        raise UserError(f"{path}: names has {no_text[0]}, which is no text in YAML; quote it")
    texts = [clean_name(str(name)) for name in names]
    if len(set(texts)) < len(texts):
        twice = next(name for name in texts if texts.count(name) > 1)
        raise UserError(f"{path}: names has {show_value(twice)} twice; give each class its own")
    if type(count := settings.get("nc")) is int and count != len(texts):
        raise UserError(f"{path}: nc is {count}, but names has {len(texts)} classes; mend one")
    return texts
