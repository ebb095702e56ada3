"""Images with annotated objects, from `read_coco` to training and evaluation."""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from spanets.formats.coco.keypoints import Keypoints, count_labelled
from spanets.formats.coco.rle import read_lengths
from spanets_runtime.errors import UserError, nearest, require

# Training keeps all masks of an image in memory, and a value for each pair of object and anchor.
MAX_OBJECTS = 10_000


@dataclass(frozen=True)
class Annotation:
    """An object in an image.

    Attributes:
        id: Id in the annotation file.
        label: Class number from 1; 0 is the background.
        box: x1, y1, x2, y2 in pixels.
        area: Area of the mask in pixels, from the file; it decides COCO's sizes "small", "medium"
            and "large".
        crowd: Whether this is a region of many objects, which training and evaluation ignore.
        segmentation: Polygons or run lengths as in the file, or None.
        keypoints: x, y and visibility of each keypoint in turn, or None; see `read_points`.
    """

    id: int
    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    segmentation: Any
    keypoints: tuple[float, ...] | None = None


@dataclass(frozen=True)
class CocoImage:
    """An image file with its objects; width and height are those of the upright image in pixels."""

    id: int
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class CocoData:
    """A data set.

    Attributes:
        images: Images in the file's order.
        classes: Class names; label 1 is the first.
        category_ids: The file's id of each class.
        notes: Messages about what was left out or changed.
        source: Name of the file, for messages.
        keypoints: The keypoints of the objects; None if there are none, or none were asked for.
    """

    images: list[CocoImage]
    classes: list[str]
    category_ids: list[int]
    notes: tuple[str, ...] = ()
    source: str = "the annotations"
    keypoints: Keypoints | None = None


def select_for_training(data: CocoData, keep_empty: bool) -> CocoData:
    """Leaves out crowd regions, missing files and, unless `keep_empty`, images without objects.

    Raises:
        UserError: no image is left, or one has too many objects for the memory.
    """
    missing = find_missing(data)
    gone = {image.path for image in missing}
    present = [image for image in data.images if image.path not in gone]
    objects = [
        replace(image, annotations=tuple(a for a in image.annotations if not a.crowd))
        for image in present
    ]
    kept = [image for image in objects if keep_empty or image.annotations]
    crowds = sum(a.crowd for image in present for a in image.annotations)
    empty, lost = len(objects) - len(kept), _name_missing(missing)
    if not kept:
        reasons = [*data.notes, lost, f"images without objects: {empty}" if empty else ""]
        why = "; ".join(filter(None, reasons))
        raise UserError(f"{data.source}: no image with objects to train on ({why})")
    _check_numbers(kept, data.source)
    notes = [
        f"{lost}; training goes on without" if missing else "",
        f"images without objects, left out of training: {empty}" if empty else "",
        f"crowd regions, left out of training: {crowds}" if crowds else "",
    ]
    return replace(data, images=kept, notes=(*data.notes, *filter(None, notes)))


def _check_numbers(images: list[CocoImage], source: str) -> None:
    most = max(images, key=lambda image: len(image.annotations))
    if len(most.annotations) > MAX_OBJECTS:
        raise UserError(
            f"{source}: {most.path.name} has {len(most.annotations)} objects, of at most "
            f"{MAX_OBJECTS} in an image; cut it into parts"
        )


def check_masks(data: CocoData) -> None:
    """Raises a UserError if an object has no mask, so that training does not fail later."""
    objects = [a for image in data.images for a in image.annotations]
    lacking = [a.id for a in objects if a.segmentation is None]
    if lacking:
        raise UserError(
            f"{data.source}: annotation {lacking[0]} has no segmentation ({len(lacking)} of "
            f"{len(objects)} have none), and masks are asked for; add them, or train a detector "
            "of boxes: --model.head retinanet"
        )


def check_keypoints(data: CocoData) -> None:
    """Raises a UserError if no object has a keypoint."""
    if not any(count_labelled(a.keypoints) for i in data.images for a in i.annotations):
        raise UserError(
            f"{data.source}: no annotation has keypoints, which keypoint_rcnn needs; add them, or "
            "train a detector of boxes: --model.head retinanet"
        )


def match_keypoints(data: CocoData, keypoints: Keypoints) -> CocoData:
    """Returns a data set with the keypoints of a model.

    Raises:
        UserError: the data set has other keypoints, or the same in another order.
    """
    own = data.keypoints
    if own is None or own.names == keypoints.names:
        return replace(data, keypoints=keypoints)
    unnamed = Keypoints.unnamed(len(keypoints.names)).names
    if len(own.names) == len(unnamed) and unnamed in (own.names, keypoints.names):
        return replace(data, keypoints=keypoints)
    names = (", ".join(found.names[:20]) for found in (own, keypoints))
    raise UserError("{}: has the keypoints {}; the model's are {}".format(data.source, *names))


def check_files(data: CocoData) -> None:
    """Raises a UserError if an image is missing, which would change the metrics."""
    missing = find_missing(data)
    if missing:
        what = _name_missing(missing)
        raise UserError(f"{what}; add what is missing, or take it out of the annotations")


def find_missing(data: CocoData) -> list[CocoImage]:
    """Returns the images whose files are missing."""
    return [image for image in data.images if not os.path.isfile(image.path)]


def _name_missing(images: list[CocoImage]) -> str:
    more = f" and {len(images) - 1} more" if len(images) > 1 else ""
    return f"{images[0].path}: no such image{more}" if images else ""


def map_classes(data: CocoData, classes: list[str]) -> CocoData:
    """Renumbers labels for a model with these classes; the file may lack some of them.

    Raises:
        UserError: an object has a class that the model lacks.
    """
    used = {a.label for image in data.images for a in image.annotations}
    place = {_composed(name): label for label, name in enumerate(classes, start=1)}
    for label, name in enumerate(data.classes, start=1):
        if label in used and _composed(name) not in place:
            hint = nearest(name, classes) or f"; it has {', '.join(classes[:20])}"
            raise UserError(
                f"{data.source}: has objects of class {name!r}, which the model does not know{hint}"
            )
    labels = {i: place.get(_composed(name), 0) for i, name in enumerate(data.classes, start=1)}
    images = [
        replace(
            image,
            annotations=tuple(replace(a, label=labels[a.label]) for a in image.annotations),
        )
        for image in data.images
    ]
    return replace(data, images=images, classes=classes, category_ids=find_numbers(data, classes))


def find_numbers(data: CocoData, classes: Iterable[str]) -> list[int]:
    """Returns the file's id of each class, and unused higher ids for classes it does not list."""
    pairs = zip(data.classes, data.category_ids, strict=True)
    known = {_composed(name): number for name, number in pairs}
    unused = count(max(data.category_ids) + 1)
    return [known[key] if (key := _composed(name)) in known else next(unused) for name in classes]


def _composed(name: str) -> str:
    """Returns a name in Unicode's NFC form, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def area_of(shape: Any, height: int, width: int) -> int:
    """Returns the area in pixels of polygons or run lengths in an image of this size.

    Raises:
        UserError: polygons need the extra `detection`.
    """
    if isinstance(shape, Mapping):
        return sum(read_lengths(shape["counts"], height, width)[1::2])
    coco_mask = require("faster_coco_eval.core.mask", "detection")
    return int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(shape, height, width))))


def to_coco(data: CocoData) -> dict[str, Any]:
    """Returns a data set in COCO's format, with annotation ids from 1.

    COCO's evaluation treats an annotation with the id 0 as unmatched.
    """
    images = [{"id": i.id, "width": i.width, "height": i.height} for i in data.images]
    named = data.keypoints.to_category() if data.keypoints else {}
    categories = [
        {"id": number, "name": name, **named}
        for number, name in zip(data.category_ids, data.classes, strict=True)
    ]
    annotations = [
        {
            "image_id": image.id,
            "category_id": data.category_ids[annotation.label - 1],
            "bbox": to_xywh(annotation.box),
            "area": annotation.area,
            "iscrowd": int(annotation.crowd),
            "segmentation": annotation.segmentation or [],
            **_points(annotation, data.keypoints),
        }
        for image in data.images
        for annotation in image.annotations
    ]
    numbered = [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)]
    return {"images": images, "categories": categories, "annotations": numbered}


def _points(annotation: Annotation, keypoints: Keypoints | None) -> dict[str, Any]:
    """Returns an annotation's keypoints in COCO's format; zeros if it has none."""
    if keypoints is None:
        return {}
    points = annotation.keypoints or (0.0,) * (3 * len(keypoints.names))
    return {"keypoints": list(points), "num_keypoints": count_labelled(points)}


def to_xywh(box: Iterable[float]) -> list[float]:
    """Converts x1, y1, x2, y2 to x, y, width and height."""
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]
