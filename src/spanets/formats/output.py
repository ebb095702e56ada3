"""Writes data sets in other formats, and counts what these cannot hold."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from spanets.formats import voc, yolo
from spanets.formats.coco.faults import show_value
from spanets.formats.coco.filling import fill_polygons
from spanets.formats.coco.objects import Annotation, CocoData, CocoImage, to_xywh
from spanets.formats.coco.rle import decode_runs
from spanets.formats.colours import IGNORED
from spanets.formats.dataset import Content
from spanets.formats.masks import BINARY
from spanets.formats.outlines import outline_of
from spanets.recipe.yaml_text import dump_yaml
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.progress import progress

Images = Literal["copy", "link", "none"]
"""What becomes of the image files."""

_COCO_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}

# A box may differ by this from the file's by the order of additions alone, in pixels.
_SAME = 1e-6


@dataclass(frozen=True)
class Checked:
    """A part after its check.

    Attributes:
        name: Name of the part.
        content: COCO's object, as it was read.
        data: The images and objects that are left after the check.
        folder: The folder of the images.
    """

    name: str
    content: Content
    data: CocoData
    folder: Path

    def place(self, image: CocoImage) -> PurePosixPath:
        """Returns the path of an image within its folder."""
        return PurePosixPath(image.path.relative_to(self.folder).as_posix())


class Output:
    """A folder to write to.

    Args:
        out: The folder; new or empty.
        images: Whether to copy the images, to link to them, or to leave them.
    """

    def __init__(self, out: Path, images: Images) -> None:
        self.out, self.images = out, images
        self.counts: dict[str, int] = {}
        self.notes: list[str] = []

    def count(self, what: str, number: int = 1) -> None:
        """Counts what is left out or changed."""
        if number:
            self.counts[what] = self.counts.get(what, 0) + number

    def text(self, place: str | PurePosixPath, text: str) -> None:
        """Writes a text file in UTF-8."""
        write_atomically(self.out / place, partial(_write, text.encode()))

    def image(self, image: CocoImage, place: PurePosixPath) -> None:
        """Copies or links an image file."""
        if self.images == "link":
            self._make(place, lambda target: target.symlink_to(os.path.abspath(image.path)))
        elif self.images == "copy":
            self._make(place, lambda target: shutil.copyfile(image.path, target))

    def label(self, place: PurePosixPath, content: str | Image.Image) -> None:
        """Writes the labels of one image.

        They are not synced one by one, which would take hours for a large data set; the file that
        lists them all is written last, and completely or not at all.
        """
        if isinstance(content, str):
            self._make(place, lambda target: target.write_bytes(content.encode()))
        else:
            self._make(place, lambda target: content.save(target, "PNG"))

    def _make(self, place: PurePosixPath, write: Callable[[Path], object]) -> None:
        target = self.out / place
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(target)
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror})") from None

    def describe(self) -> list[str]:
        """Returns a line for each kind of what was left out or changed."""
        return [*self.notes, *(f"{what}: {number}" for what, number in self.counts.items())]

    def leave_out(self, parts: Iterable[Checked], kind: str, kept: Sequence[str] = ()) -> None:
        """Counts the ids and the other keys of annotations, which a format cannot hold."""
        for part in parts:
            left = {a.id for image in part.data.images for a in image.annotations}
            for entry in part.content["annotations"]:
                if entry["id"] in left:
                    for key in sorted(entry.keys() - _COCO_KEYS - set(kept)):
                        known = entry[key] not in (None, 0, "", [], {})
                        self.count(f"annotations lose their {key}, {kind} has none", int(known))
            objects, images = len(left), len(part.data.images)
            self.count(f"images and objects lose their ids, {kind} has none", objects + images)


Writer = Callable[[Output, list[Checked]], None]


def write_coco(output: Output, parts: list[Checked]) -> None:
    """Writes `annotations/instances_PART.json` and a folder of images for each part.

    Entries keep their ids, order and all their keys; only what the check left out is missing, and
    only boxes and polygons that it changed are changed.
    """
    for part in parts:
        left = {a.id: a for image in part.data.images for a in image.annotations}
        names = {image.id: part.place(image).as_posix() for image in part.data.images}
        content = {
            **part.content,
            "images": [
                {**entry, "file_name": names[entry["id"]]}
                for entry in part.content["images"]
                if entry["id"] in names
            ],
            "annotations": [
                _as_checked(entry, left[entry["id"]])
                for entry in part.content["annotations"]
                if entry["id"] in left
            ],
        }
        for image in _each(part):
            output.image(image, PurePosixPath(part.name) / part.place(image))
        output.text(f"annotations/instances_{part.name}.json", json.dumps(content) + "\n")


def write_yolo(output: Output, parts: list[Checked]) -> None:
    """Writes data.yaml, and images and labels of each part: polygons if all objects have a mask."""
    classes = _same_classes(parts, "YOLO")
    objects = [a for part in parts for image in part.data.images for a in image.annotations]
    masked = [a for a in objects if a.segmentation is not None and not a.crowd]
    as_polygons = bool(masked) and len(masked) == sum(not a.crowd for a in objects)
    if masked and not as_polygons:
        output.count(
            "objects lose their masks, as others have none and YOLO wants all or none", len(masked)
        )
    for part in parts:
        for image in _each(part):
            lines = [
                line
                for a in image.annotations
                if (line := _yolo_line(output, image, a, as_polygons)) is not None
            ]
            place = part.place(image)
            output.image(image, PurePosixPath("images", part.name) / place)
            text = "".join(f"{line}\n" for line in lines)
            output.label(PurePosixPath("labels", part.name) / place.with_suffix(".txt"), text)
    output.leave_out(parts, yolo.NAME)
    _tell_numbers(output, parts[0].data)
    folders = {part.name: f"images/{part.name}" for part in parts}
    settings = {"path": ".", **folders, "names": dict(enumerate(classes))}
    if "val" not in folders and "train" in folders:
        output.notes.append("data.yaml has no val, which Ultralytics needs; see --val-fraction")
    output.text("data.yaml", dump_yaml(settings))


def write_voc(output: Output, parts: list[Checked]) -> None:
    """Writes Pascal VOC's folders, and classes.txt with the order of the classes."""
    classes = _same_classes(parts, voc.NAME)
    _check_one_folder(parts)
    for part in parts:
        flags = {a["id"]: a for a in part.content["annotations"]}
        for image in _each(part):
            place = part.place(image)
            tree = _voc_tree(output, image, place, classes, flags)
            ElementTree.indent(tree)
            text = ElementTree.tostring(tree, encoding="unicode")
            output.image(image, "JPEGImages" / place)
            output.label("Annotations" / place.with_suffix(".xml"), f"{text}\n")
        stems = [part.place(image).with_suffix("").as_posix() for image in part.data.images]
        output.text(f"ImageSets/Main/{part.name}.txt", "".join(f"{stem}\n" for stem in stems))
    output.leave_out(parts, voc.NAME, voc.FLAGS)
    _tell_numbers(output, parts[0].data)
    output.text("classes.txt", "".join(f"{name}\n" for name in classes))


def write_masks(output: Output, parts: list[Checked]) -> None:
    """Writes images, masks of class numbers, and classes.txt, as `spanets train` reads them."""
    names = _same_classes(parts, "a folder of masks")
    categories = parts[0].content["categories"]
    ids = parts[0].data.category_ids
    is_stuff = all(c.get("isthing") == 0 for c in categories) and ids == list(range(len(ids)))
    first = 0 if is_stuff else 1
    classes = names if is_stuff else [BINARY[0], *names]
    if len(set(classes)) < len(classes):
        raise UserError(f"a class is named {BINARY[0]!r}, as the pixels of no object; rename it")
    if len(classes) > IGNORED:
        raise UserError(f"{len(classes)} classes, of at most {IGNORED} in 8-bit masks")
    if not any(a.segmentation for p in parts for i in p.data.images for a in i.annotations):
        raise UserError("no object has a mask, only boxes; choose --to coco, yolo or voc")
    for part in parts:
        for image in _each(part):
            place = part.place(image)
            mask = _paint(output, image, first, IGNORED if is_stuff else 0)
            output.image(image, PurePosixPath("images", part.name) / place)
            output.label(PurePosixPath("masks", part.name) / place.with_suffix(".png"), mask)
    if not is_stuff:
        output.notes.append(
            f"masks hold classes: 0 is {BINARY[0]}, and objects of a class are not told apart"
        )
        output.leave_out(parts, "a mask")
    output.text("classes.txt", "".join(f"{name}\n" for name in classes))


WRITERS: dict[str, Writer] = {
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
    "masks": write_masks,
}
"""The formats that can be written."""


def _each(part: Checked) -> Iterable[CocoImage]:
    description = f"write {part.name}"
    return progress(part.data.images, description)


def _as_checked(entry: dict[str, Any], found: Annotation) -> dict[str, Any]:
    """Returns an annotation with what the check changed: a box that was cut, polygons left out."""
    box = to_xywh(found.box)
    differs = max(abs(a - b) for a, b in zip(box, entry["bbox"], strict=True)) > _SAME
    changed = {"bbox": box} if differs else {}
    shape = found.segmentation
    if isinstance(shape, list) and entry["segmentation"] != shape:
        changed["segmentation"] = shape
    return {"area": found.area, "iscrowd": int(found.crowd), **entry, **changed}


def _same_classes(parts: list[Checked], kind: str) -> list[str]:
    """Returns the classes, which must be the same in all parts for one list of them."""
    first, *others = parts
    for other in others:
        if (other.data.classes, other.data.category_ids) != (
            first.data.classes,
            first.data.category_ids,
        ):
            raise UserError(
                f"{other.data.source} and {first.data.source} list other categories, and {kind} "
                "has one list for all parts; make them equal"
            )
    return first.data.classes


def _check_one_folder(parts: list[Checked]) -> None:
    """Raises a UserError for equal names of two parts, which Pascal VOC keeps in one folder."""
    seen: dict[PurePosixPath, str] = {}
    for part in parts:
        for image in part.data.images:
            stem = part.place(image).with_suffix("")
            if (other := seen.setdefault(stem, part.name)) != part.name:
                raise UserError(
                    f"{image.path}: {other} and {part.name} both have an image of this name, and "
                    "Pascal VOC keeps all in one folder; rename one"
                )


def check_stems(part: Checked) -> None:
    """Raises a UserError if images differ in their suffix alone, as their labels would be one."""
    seen: dict[PurePosixPath, PurePosixPath] = {}
    for image in part.data.images:
        place = part.place(image)
        other = seen.setdefault(place.with_suffix(""), place)
        if other is not place:
            raise UserError(f"{part.name}: {other} and {place} would share one label file; rename")


def _tell_numbers(output: Output, data: CocoData) -> None:
    """Notes the new number of each category, if the ids change."""
    if data.category_ids != list(range(len(data.classes))):
        pairs = zip(data.category_ids, data.classes, strict=True)
        shown = [f"{old} {show_value(name)} is {new}" for new, (old, name) in enumerate(pairs)]
        more = f" and {len(shown) - 10} more" if shown[10:] else ""
        output.notes.append(f"category ids become places in a list: {', '.join(shown[:10])}{more}")


def _yolo_line(output: Output, image: CocoImage, found: Annotation, polygons: bool) -> str | None:
    if found.crowd:
        output.count("crowd regions left out, YOLO has none")
        return None
    size = np.array([image.width, image.height])
    if polygons:
        shape = found.segmentation
        outline = outline_of(shape, image.height, image.width)
        if outline is None:
            output.count("objects with an empty mask left out")
            return None
        if isinstance(shape, dict):
            output.count("masks of run lengths become polygons along the edges of their pixels")
        elif len(shape) > 1:
            output.count("objects of several polygons become one, with bridges between them")
        values = np.array(outline).reshape(-1, 2) / size
    else:
        x1, y1, x2, y2 = found.box
        corners = np.array([[x1, y1], [x2, y2]]).clip(0, size) / size
        values = np.stack([corners.mean(0), corners[1] - corners[0]])
    if polygons and (values.min() < 0 or values.max() > 1):
        output.count("polygons cut at the edge of their image")
    return " ".join([str(found.label - 1), *(f"{v:.10g}" for v in values.clip(0, 1).ravel())])


def _voc_tree(
    output: Output,
    image: CocoImage,
    place: PurePosixPath,
    classes: list[str],
    entries: dict[int, dict[str, Any]],
) -> ElementTree.Element:
    """Returns the XML of an image; corners count from 1."""
    tree = ElementTree.Element("annotation")
    _add(tree, "folder", "JPEGImages")
    _add(tree, "filename", place.as_posix())
    size = ElementTree.SubElement(tree, "size")
    for key, side in (("width", image.width), ("height", image.height), ("depth", 3)):
        _add(size, key, str(side))
    _add(tree, "segmented", "0")
    for found in image.annotations:
        if found.crowd:
            output.count("crowd regions left out, Pascal VOC has none")
            continue
        if found.segmentation is not None:
            output.count("objects lose their masks, Pascal VOC's XML has boxes alone")
        entry = ElementTree.SubElement(tree, "object")
        _add(entry, "name", classes[found.label - 1])
        for key in voc.FLAGS:
            _add(entry, key, str(int(bool(entries[found.id].get(key)))))
        box = ElementTree.SubElement(entry, "bndbox")
        x1, y1, x2, y2 = found.box
        corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        if any(value != round(value) for value in corners.values()):
            output.count(
                "boxes with parts of a pixel, written with decimals, which some programs "
                "cannot read"
            )
        for key, value in corners.items():
            _add(box, key, f"{value:.10g}")
    return tree


def _add(parent: ElementTree.Element, key: str, text: str) -> None:
    ElementTree.SubElement(parent, key).text = text


def _paint(output: Output, image: CocoImage, first: int, rest: int) -> Image.Image:
    """Returns a mask of class numbers; of overlapping objects, the smaller lies on top."""
    size = image.height, image.width
    mask = np.full(size, rest, np.uint8)
    taken = np.zeros(size, bool)
    order = sorted(image.annotations, key=lambda a: (not a.crowd, -a.area))
    for found in order:
        shape = found.segmentation
        if shape is None:
            output.count("objects without a mask left out")
            continue
        runs = isinstance(shape, dict)
        pixels = decode_runs(shape["counts"], *size) if runs else fill_polygons(shape, size)
        pixels = pixels.astype(bool)
        if (taken & pixels & (mask != found.label - 1 + first)).any():
            output.count("objects lie over objects of another class; the smaller is on top")
        if found.crowd:
            output.count(f"crowd regions become pixels to ignore ({IGNORED})")
        mask[pixels] = IGNORED if found.crowd else found.label - 1 + first
        taken |= pixels
    return Image.fromarray(mask)


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)
