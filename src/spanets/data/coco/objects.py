"""Images with annotated objects: what `read_coco` reads, and what training and evaluation take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from spanets.data.coco.rle import Mask, decode_runs
from spanets_runtime.errors import UserError, nearest, require


@dataclass(frozen=True)
class Annotation:
    """An object in an image.

    Attributes:
        id: The file's.
        label: 1 for the first of the classes; 0 is left to the background.
        box: x1, y1, x2, y2 in pixels.
        area: In pixels, the file's, which is that of the mask: COCO's "small", "medium" and
            "large" go by it.
        crowd: Whether this is a region of many objects, neither learnt nor counted against one.
        segmentation: Polygons or run lengths as in the file; None where it has none.
    """

    id: int
    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    segmentation: Any


@dataclass(frozen=True)
class CocoImage:
    """An image file with its objects; width and height in pixels, upright."""

    id: int
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class CocoData:
    """A data set.

    Attributes:
        images: In the file's order.
        classes: Names; label 1 is the first.
        category_ids: The file's number of each class.
        notes: What was left out or changed, one line or none.
        source: The file, for messages.
    """

    images: list[CocoImage]
    classes: list[str]
    category_ids: list[int]
    notes: tuple[str, ...] = ()
    source: str = "the annotations"


def select_for_training(data: CocoData, keep_empty: bool) -> CocoData:
    """Leaves out crowd regions, missing files and, if asked, images without objects.

    Raises:
        UserError: no image is left.
    """
    present = [image for image in data.images if image.path.is_file()]
    objects = [
        replace(image, annotations=tuple(a for a in image.annotations if not a.crowd))
        for image in present
    ]
    kept = [image for image in objects if keep_empty or image.annotations]
    missing, left_out = _missing(data.images), len(objects) - len(kept)
    if not kept:
        reasons = [*data.notes, missing, f"images without objects: {left_out}" if left_out else ""]
        why = "; ".join(filter(None, reasons))
        raise UserError(f"{data.source}: no image with objects to train on ({why})")
    notes = list(data.notes)
    if missing:
        notes.append(f"{missing}; training goes on without")
    if left_out:
        notes.append(f"images without objects, left out of training: {left_out}")
    return replace(data, images=kept, notes=tuple(notes))


def check_masks(data: CocoData) -> None:
    """Raises a UserError if an object has no mask: told before training and not in its midst."""
    objects = [a for image in data.images for a in image.annotations]
    lacking = [a.id for a in objects if a.segmentation is None]
    if lacking:
        raise UserError(
            f"{data.source}: annotation {lacking[0]} has no segmentation ({len(lacking)} of "
            f"{len(objects)} have none), and masks are asked for; add them, or train a detector "
            "of boxes: --model.head retinanet"
        )


def check_files(data: CocoData) -> None:
    """Raises a UserError if an image is missing: measured without it, the numbers would differ."""
    missing = _missing(data.images)
    if missing:
        raise UserError(f"{missing}; add what is missing, or take it out of the annotations")


def _missing(images: Iterable[CocoImage]) -> str:
    missing = [image.path for image in images if not image.path.is_file()]
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"{missing[0]}: no such image{more}" if missing else ""


def map_classes(data: CocoData, classes: list[str]) -> CocoData:
    """Renumbers labels for a model with these classes, which the file may know but in part.

    Raises:
        UserError: an object has a class that the model does not know.
    """
    used = {a.label for image in data.images for a in image.annotations}
    for label, name in enumerate(data.classes, start=1):
        if label in used and name not in classes:
            hint = nearest(name, classes) or f"; it has {', '.join(classes[:20])}"
            raise UserError(
                f"{data.source}: has objects of class {name!r}, which the model does not know{hint}"
            )
    labels = {i: classes.index(n) + 1 for i, n in enumerate(data.classes, start=1) if n in classes}
    images = [
        replace(
            image,
            annotations=tuple(replace(a, label=labels[a.label]) for a in image.annotations),
        )
        for image in data.images
    ]
    known = dict(zip(data.classes, data.category_ids, strict=True))
    unused = count(max(data.category_ids) + 1)
    ids = [known[name] if name in known else next(unused) for name in classes]
    return replace(data, images=images, classes=classes, category_ids=ids)


def mask_of(annotation: Annotation, height: int, width: int) -> Mask:
    """Returns the mask (H, W) of 0 and 1, polygons as COCO's own tools fill them.

    Raises:
        UserError: the annotation has no mask, or filling polygons needs the extra `detection`.
    """
    shape = annotation.segmentation
    if shape is None:
        raise UserError(
            f"annotation {annotation.id} has no segmentation, and masks are asked for; "
            "train a detector of boxes, such as retinanet"
        )
    if isinstance(shape, Mapping):
        return decode_runs(shape["counts"], height, width)
    coco_mask = require("faster_coco_eval.core.mask", "detection")
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shape, height, width)))


def to_coco(data: CocoData) -> dict[str, Any]:
    """Returns a data set in COCO's format, annotations numbered from 1.

    COCO's evaluation takes an annotation of the number 0 for one that no detection has met.
    """
    images = [{"id": i.id, "width": i.width, "height": i.height} for i in data.images]
    categories = [
        {"id": number, "name": name}
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
        }
        for image in data.images
        for annotation in image.annotations
    ]
    numbered = [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)]
    return {"images": images, "categories": categories, "annotations": numbered}


def to_xywh(box: Iterable[float]) -> list[float]:
    """Returns x, y, width and height of x1, y1, x2, y2."""
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]
