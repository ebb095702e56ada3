"""Pascal VOC's XML, as labelImg, Roboflow and CVAT write it: a file an image, with boxes.

    Annotations/a.xml     JPEGImages/a.jpg     ImageSets/Main/train.txt, val.txt, test.txt
    train/a.xml           train/a.jpg          the files beside each other, with or without parts

Corners are pixels that belong to the object, counted from 1: a box of the whole image is
1, 1, width, height. In COCO this is x 0, y 0. If a file of the data set has a corner at 0, its
tool counted from 0, and no number is changed by one.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from spanets.formats.coco.faults import Fault
from spanets.formats.dataset import Collector, Dataset, list_classes, number_of
from spanets.formats.image_finder import ImageFinder
from spanets.formats.part_folders import describe_beside, name_part, part_folders
from spanets.formats.xml_file import read_xml, root_tag
from spanets_runtime.progress import progress
from spanets_runtime.reading import read_text_file

NAME = "Pascal VOC"
LOOKED_FOR = "Annotations/*.xml beside JPEGImages/, or .xml files beside images"

FLAGS = ("difficult", "truncated", "occluded")
"""Marks of an object that are kept, as keys of COCO's annotations."""

_PARTS = ("train", "val", "test")


def detect(root: Path) -> bool:
    """Whether a folder has this format."""
    if not root.is_dir():
        return False
    first = (next(_annotations(folder), None) for folder in _folders(root))
    return any(path is not None and root_tag(path) == "annotation" for path in first)


def read(root: Path) -> Dataset:
    """Reads a data set.

    Raises:
        UserError: a file is no XML or has a DOCTYPE, coordinates are no numbers, or there are no
            images.
    """
    classes = list_classes(root, "classes.txt", "labels.txt", "predefined_classes.txt")
    if classes is None and os.path.isfile(root / "labelmap.txt"):
        classes = [
            line.partition(":")[0]
            for line in read_text_file(root / "labelmap.txt", 2**20).splitlines()
            if line.strip() and not line.startswith("#")
        ]
        classes = [name for name in classes if name != "background"]
    found, images = Collector(NAME, root, classes), ImageFinder(root)
    files = [(part, path) for part, path in _list(root, found) if root_tag(path) == "annotation"]
    entries = [_extract(part, path, read_xml(path)) for part, path in progress(files, "read XML")]
    shift = 0.0 if any(map(_begins_at_0, entries)) else 1.0
    if not shift:
        found.notes.append(
            f"{root}: a box begins at pixel 0, so pixels are taken as counted from 0, not from 1"
        )
    for entry in entries:
        _add(found, images, entry, shift)
    return found.finish()


@dataclass(frozen=True)
class _Entry:
    """The texts of a file that count; objects are name, corners and flags."""

    part: str
    path: Path
    name: str
    size: list[str]
    objects: list[tuple[str, list[str | None], dict[str, int]]]


def _extract(part: str, path: Path, tree: ElementTree.Element) -> _Entry:
    objects = [
        (
            (entry.findtext("name") or "").strip(),
            [entry.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")],
            {key: 1 for key in FLAGS if (entry.findtext(key) or "0").strip() == "1"},
        )
        for entry in tree.iter("object")
    ]
    size = [tree.findtext(f"size/{key}") or "0" for key in ("width", "height")]
    return _Entry(part, path, (tree.findtext("filename") or "").strip(), size, objects)


def _folders(root: Path) -> list[Path]:
    return (
        [root / "Annotations"]
        if (root / "Annotations").is_dir()
        else [*part_folders(root).values()]
    )


def _annotations(folder: Path) -> Any:
    return iter(sorted(folder.rglob("*.xml"))) if folder.is_dir() else iter(())


def _list(root: Path, found: Collector) -> list[tuple[str, Path]]:
    """Returns the XML files with their parts."""
    folder = root / "Annotations"
    if not folder.is_dir():
        parts = part_folders(root)
        found.notes += describe_beside(root, parts.values(), {".xml"})
        return [(part, path) for part, at in parts.items() for path in _annotations(at)]
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in _annotations(folder)
    }
    sets = root / "ImageSets" / "Main"
    lists = {part: sets / f"{part}.txt" for part in _PARTS if (sets / f"{part}.txt").is_file()}
    if not lists and (sets / "default.txt").is_file():
        lists = {"train": sets / "default.txt"}
    if not lists:
        return [
            (name_part(path.relative_to(folder).parts[0] if "/" in name else ""), path)
            for name, path in files.items()
        ]
    listed: list[tuple[str, Path]] = []
    for part, place in lists.items():
        for line in read_text_file(place, 2**26).splitlines():
            name = line.strip()
            if name not in files:  # lists of one class have a number after the name
                name = name.rpartition(" ")[0].strip() or name
            if name in files:
                listed.append((part, files[name]))
            elif name:
                found.count(f"names in {place.name} without an XML file, left out", name)
    for path in sorted(set(files.values()) - {path for _, path in listed}):
        found.count("XML files in no list of ImageSets/Main, left out", path)
    return listed


def _begins_at_0(entry: _Entry) -> bool:
    for text in (text for _, corners, _ in entry.objects for text in corners[:2]):
        try:
            if text is not None and 0 <= float(text) < 1:
                return True
        except ValueError:
            continue
    return False


def _add(found: Collector, images: ImageFinder, entry: _Entry, shift: float) -> None:
    path, folders = entry.path, _image_folders(found.root, entry.path)
    # Tools rename images, and forget the name in the file.
    renamed = [f"{path.stem}{suffix}" for suffix in (".jpg", ".jpeg", ".png", ".bmp", ".tif")]
    file = images.find([entry.name, *renamed] if entry.name else renamed, *folders)
    with found.faults.of(f"XML[{path.relative_to(found.root).as_posix()}]"):
        width, height = (int(number_of(text, "the size")) for text in entry.size)
        size = (width, height) if min(width, height) > 0 else None
        image = found.add_image(entry.part, file, size, name=entry.name or path.stem)
        if image is None:
            return
        for label, texts, flags in entry.objects:
            if all(text is None for text in texts):
                found.count("objects without a box, left out", path)
                continue
            if not label:
                raise Fault("no name", "has an object without a name")
            x1, y1, x2, y2 = (number_of(text, "a corner") for text in texts)
            box = (x1 - shift, y1 - shift, x2, y2)
            found.add_object(entry.part, image, label, box, **flags)


def _image_folders(root: Path, path: Path) -> list[Path]:
    parts = path.parent.relative_to(root).parts
    inner = parts[1:] if parts[:1] == ("Annotations",) else ()
    return [root / "JPEGImages" / Path(*inner), root / "JPEGImages", path.parent, root / "images"]
