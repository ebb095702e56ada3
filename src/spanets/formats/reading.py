"""Finds the format of a data set with objects, reads it, checks it, and converts it."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from spanets.data.run_data import RunData
from spanets.data.splits import divide
from spanets.formats import (
    coco_layouts,
    cvat,
    label_studio,
    labelme,
    masks,
    object_masks,
    voc,
    yolo,
)
from spanets.formats.coco.objects import CocoData
from spanets.formats.coco.reader import check_coco
from spanets.formats.dataset import Dataset, Part
from spanets.formats.output import WRITERS, Checked, Images, Output, check_stems
from spanets_runtime.errors import UsageError, UserError, nearest
from spanets_runtime.progress import progress
from spanets_runtime.sizes import quick_size

FORMATS: dict[str, ModuleType] = {
    "yolo": yolo,
    "coco": coco_layouts,
    "cvat": cvat,
    "voc": voc,
    "labelme": labelme,
    "labelstudio": label_studio,
    "masks": masks,
    "dsb2018": object_masks,
}
"""The formats that can be read, in the order in which they are tried."""

NAMES = (*FORMATS, "instances")
"""Words for a format on the command line; "instances" are masks with one number an object."""

Split = Mapping[str, Sequence[str]]
"""Names of images by part, for a run's split list; empty if the data set came in parts."""

VAL_SHARE = 0.2
"""Share of the images that validate, if a data set has no part for it."""


def find_formats(path: Path) -> list[str]:
    """Returns the words for all formats that a folder or file seems to have."""
    return [name for name, module in FORMATS.items() if module.detect(path)]


def read_dataset(path: Path, format: str | None = None) -> Dataset:
    """Reads a data set in any of `FORMATS`.

    Args:
        path: A folder, or the file that describes it.
        format: One of `NAMES`, or None to find it.

    Raises:
        UserError: no format, or more than one, is found; or the reader of the format refuses it.
        UsageError: an unknown format.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if format is not None:
        return _reader(format)(path)
    found = find_formats(path)
    if not found:
        raise UserError(f"{path}: no known format; looked for {describe_formats()}")
    if len(found) > 1:
        names = " and ".join(f"{FORMATS[name].NAME} ({name})" for name in found)
        raise UserError(
            f"{path}: looks like {names}; keep one of them there, or convert it with "
            f"`spanets convert {path} --from {found[0]} --to coco --out DIR`"
        )
    return _reader(found[0])(path)


def describe_formats() -> str:
    """Returns what the formats are recognised by."""
    return "; ".join(f"{module.NAME}: {module.LOOKED_FOR}" for module in FORMATS.values())


def read_objects(
    root: Path,
    parts: Sequence[str],
    instead_of: Path,
    keypoints: bool = False,
    run_data: RunData | None = None,
    draw: bool = True,
) -> tuple[list[CocoData], Split]:
    """Reads parts of a data set for a detector, in any of `FORMATS`.

    The notes of the first part name the format, and the number of images and objects by part.

    Args:
        root: The folder.
        parts: "train" or "val"; without such images, "val" is taken out of "train", or all of it.
        instead_of: The annotation file that was expected, for messages.
        keypoints: Whether to read keypoints as well, which only COCO's format has.
        run_data: What the run recorded about its data; images keep the part in its split list.
        draw: Whether to draw the images of a missing "val"; otherwise all of "train" are.

    Returns:
        The parts, and the names of the images by part, for the run's split list.

    Raises:
        UserError: no format is found, a part is missing, masks do not tell objects apart, or the
            data set does not fit the run's split list.
    """
    found = find_formats(root)
    if len(found) == 2 and "masks" in found:  # such as Pascal VOC's boxes and SegmentationClass
        found.remove("masks")
    if not found:
        raise UserError(
            f"{instead_of}: no such file, and {root} has no other known format; looked for "
            f"{describe_formats()}"
        )
    if keypoints and found == ["coco"]:
        read = coco_layouts.read(root, keypoints=True)
    else:
        read = read_dataset(root, found[0] if len(found) == 1 else None)
    dataset = with_validation(read, run_data=run_data) if draw else _all_as_validation(read)
    if masks.is_of_classes(next(iter(dataset.parts.values()))):
        raise UserError(
            f"{root}: {dataset.format}: a number for each class, so that objects are not told "
            "apart; detectors need boxes, or masks with one number an object"
        )
    if missing := [part for part in parts if part not in dataset.parts]:
        raise UserError(f"{dataset.describe()}; but no part {missing[0]}")
    first, *others = (check_part(dataset.parts[part], keypoints) for part in parts)
    line = f"no {instead_of.relative_to(root)}; read instead: {dataset.describe()}"
    drawn = dataset.parts if draw and len(dataset.parts) > len(read.parts) else {}
    split = {name: _names(root, part) for name, part in drawn.items()}
    return [replace(first, notes=(line, *dataset.notes, *first.notes)), *others], split


def check_part(part: Part, keypoints: bool = False) -> CocoData:
    """Checks a part as COCO's own files are checked.

    Raises:
        UserError: see `coco.reader.check_coco`.
    """
    return check_coco(part.content, part.source, part.folder, keypoints)


def with_validation(
    dataset: Dataset, share: float = VAL_SHARE, run_data: RunData | None = None
) -> Dataset:
    """Takes images for "val" out of "train", if there is no "val".

    Whether an image is taken depends on its path below the data set's folder alone, so it never
    changes when others come or go. Runs of earlier versions have no split list, and their draw
    depends on the path below the nearest common folder of the images.

    Args:
        dataset: The data set.
        share: Share of the images to take.
        run_data: What the run recorded about its data; images keep the part in its split list.

    Raises:
        UserError: too few images, or the data set does not fit the run's split list.
    """
    train = dataset.parts.get("train")
    listed = None if run_data is None else run_data.split
    if "val" in dataset.parts and listed is not None and listed.parts:
        raise UserError(
            f"{dataset.root}: has a part for validation now, and the run took its own out of the "
            f"training images ({listed.path}); take that part away, or name other data with --data"
        )
    if "val" in dataset.parts or train is None:
        return dataset
    images, names = train.content["images"], _names(dataset.root, train)
    is_old = run_data is not None and not run_data.is_new
    drawn_by = [str(image["file_name"]) for image in images] if is_old else names

    def draw() -> tuple[list[int], list[int]]:
        taken = np.array([_draw(name) < share for name in drawn_by])
        return np.flatnonzero(~taken).tolist(), np.flatnonzero(taken).tolist()

    files = [dataset.root / name for name in names]
    found = divide(files, names, draw, str(dataset.root), run_data)
    chosen = {images[i]["id"] for i in found.val}
    kept = {images[i]["id"] for i in found.train}
    if not kept or not chosen:
        raise UserError(
            f"{dataset.root}: {len(images)} images are too few to take a share of {share:g} for "
            "validation; add images, or put some into a folder val"
        )
    how = f"by their names (a share of {share:g})" if listed is None else f"as {listed.path} says"
    note = (
        f"{dataset.root}: no part for validation; {len(chosen)} of {len(images)} images are taken "
        f"for it, {how}"
    )
    parts = {
        "train": _choose(train, kept),
        "val": _choose(train, chosen),
        **{name: part for name, part in dataset.parts.items() if name != "train"},
    }
    return replace(dataset, parts=parts, notes=(*dataset.notes, note, *found.notes))


def _all_as_validation(dataset: Dataset) -> Dataset:
    """Names the images to train on "val", if there are no others."""
    if "val" in dataset.parts or "train" not in dataset.parts:
        return dataset
    parts = {"val" if name == "train" else name: part for name, part in dataset.parts.items()}
    count = len(parts["val"].content["images"])
    note = f"{dataset.root}: no part for validation; all {count} images are measured"
    return replace(dataset, parts=parts, notes=(*dataset.notes, note))


def convert(
    source: Path,
    to: str,
    out: Path,
    format: str | None = None,
    images: Images = "copy",
    val_share: float | None = None,
) -> dict[str, Any]:
    """Converts a data set to another format.

    Args:
        source: A folder, or the file that describes it.
        to: A key of `WRITERS`.
        out: The folder to write; new or empty.
        format: One of `NAMES`, or None to find it.
        images: Whether to copy the images, to link to them, or to leave them.
        val_share: Share of the images for "val", if there is no such part; None takes none.

    Returns:
        The formats, counts of images and objects by part, the classes, and notes about what was
        left out or changed.

    Raises:
        UserError: the data set cannot be read, an image is missing or of another size than its
            annotations say, or a file cannot be written.
        UsageError: the folder is not empty, or a format is unknown.
    """
    if to not in WRITERS:
        raise UsageError(f"--to {to}: allowed are {', '.join(WRITERS)}{nearest(to, WRITERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already and not empty; name a new folder with --out")
    dataset = read_dataset(source, format)
    if val_share is not None:
        dataset = with_validation(dataset, val_share)
    parts = [Checked(n, p.content, check_part(p), p.folder) for n, p in dataset.parts.items()]
    notes = [dataset.describe(), *dataset.notes, *(n for part in parts for n in part.data.notes)]
    if images != "none":
        parts = [_present(part, notes) for part in parts]
    if to != "coco":
        for part in parts:
            check_stems(part)
    output = Output(out, images)
    WRITERS[to](output, parts)
    return {
        "from": dataset.format,
        "to": to,
        "out": str(out),
        "parts": {part.name: _count(part) for part in parts},
        "classes": parts[0].data.classes,
        "notes": [*dict.fromkeys(notes), *output.describe()],
    }


def _reader(format: str) -> Callable[[Path], Dataset]:
    if format == "instances":
        return lambda path: masks.read(path, instances=True)
    if format not in FORMATS:
        raise UsageError(f"--from {format}: allowed are {', '.join(NAMES)}{nearest(format, NAMES)}")

    def read(path: Path) -> Dataset:
        module = FORMATS[format]
        if not module.detect(path):
            raise UserError(f"{path}: is not {module.NAME}; looked for {module.LOOKED_FOR}")
        return module.read(path)

    return read


def _names(root: Path, part: Part) -> list[str]:
    """Returns the paths of a part's images below the root."""
    files = [part.folder / str(image["file_name"]) for image in part.content["images"]]
    return [Path(os.path.relpath(file, root)).as_posix() for file in files]


def _draw(name: str) -> float:
    """Returns a number from 0 to 1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def _choose(part: Part, numbers: Set[int]) -> Part:
    """Returns the images of these ids with their objects."""
    content: Mapping[str, Any] = part.content
    chosen = {
        **content,
        "images": [i for i in content["images"] if i["id"] in numbers],
        "annotations": [a for a in content["annotations"] if a["image_id"] in numbers],
    }
    return replace(part, content=chosen)


def _present(part: Checked, notes: list[str]) -> Checked:
    """Leaves out missing images with a note, and refuses those of another size.

    Raises:
        UserError: none is left, or an image has another size than its annotations say.
    """
    kept = [image for image in part.data.images if os.path.isfile(image.path)]
    lost = [image for image in part.data.images if not os.path.isfile(image.path)]
    if lost:
        objects = sum(len(image.annotations) for image in lost)
        notes.append(
            f"{part.data.source}: images that are missing, left out with {objects} objects: "
            f"{len(lost)} (first: {lost[0].path}); --images none keeps them"
        )
    if not kept:
        raise UserError(f"{part.data.source}: none of its images is there, such as {lost[0].path}")
    wrong = []
    for image in progress(kept, "look at images"):
        size = quick_size(image.path)
        if size is not None and size != (image.height, image.width):
            wrong.append((image, size))
    if wrong:
        image, (height, width) = wrong[0]
        raise UserError(
            f"{part.data.source}: images of another size than their annotations say: {len(wrong)} "
            f"(first: {image.path}, {width}x{height}, not {image.width}x{image.height}); scale the "
            "annotations"
        )
    return replace(part, data=replace(part.data, images=kept))


def _count(part: Checked) -> dict[str, int]:
    images = part.data.images
    return {"images": len(images), "objects": sum(len(image.annotations) for image in images)}
