"""Folders of masks in other layouts than `images/` and `masks/`, and all of them as COCO's objects.

leftImg8bit/train/aachen/*_leftImg8bit.png   gtFine/train/aachen/*_gtFine_labelIds.png
JPEGImages/a.jpg   SegmentationClass/a.png   ImageSets/Segmentation/train.txt       Pascal VOC, CVAT
train/a.jpg        train/a_mask.png          train/_classes.csv                     Roboflow
images/a.jpg       masks/a.png               labelmap.txt or another list of colours
images/training/a.jpg   annotations/training/a.png                                  ADE20K
images/a.jpg       masks/a.png               one number an object, without classes.txt
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets.data.class_lists import clean_name, read_lines, read_names
from spanets.formats.colours import IGNORED, Colours, find_colours
from spanets.formats.dataset import Collector, Dataset, Part
from spanets.formats.pairs import Pairs, pair_masks
from spanets.formats.part_folders import describe_beside, part_folders
from spanets_runtime.errors import UserError
from spanets_runtime.images import FORMATS, ImageError
from spanets_runtime.labels import load_labels
from spanets_runtime.listing import list_images
from spanets_runtime.progress import progress
from spanets_runtime.reading import read_text_file

NAME = "masks"
LOOKED_FOR = "images/ beside masks/, Cityscapes, ADE20K, SegmentationClass/"

BINARY = ("background", "foreground")

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

# Cityscapes' number of each class that its benchmark evaluates; the others are ignored.
CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
_CITYSCAPES_NUMBERS = 35


@dataclass(frozen=True)
class MaskFolders:
    """Images with masks of classes.

    Attributes:
        format: Name of the format.
        parts: Images and masks by part.
        classes: Class names.
        numbers: Pairs of a mask value and its class number, or `IGNORED`.
        colours: The colours of classes, if the masks have colours; values are then class numbers.
        notes: Messages about what was left out.
        instances: Whether each number is an object and not a class.
    """

    format: str
    parts: dict[str, Pairs]
    classes: list[str]
    numbers: tuple[tuple[int, int], ...]
    colours: Colours | None = None
    notes: tuple[str, ...] = field(default=())
    instances: bool = False

    def read(self, path: Path) -> NDArray[np.uint16]:
        """Returns the numbers of a mask (H, W); see `numbers`.

        Raises:
            ImageError: it cannot be read, or has a colour that is not listed.
        """
        return load_labels(path) if self.colours is None else self.colours.read(path)


def detect(root: Path) -> bool:
    """Whether a folder has images with masks."""
    return root.is_dir() and (
        _cityscapes_folder(root) is not None
        or os.path.isdir(root / "SegmentationClass")
        or any((at / "_classes.csv").is_file() for at in part_folders(root).values())
        or (os.path.isdir(root / "images") and os.path.isdir(root / "masks"))
        or os.path.isdir(root / "annotations" / "training")
    )


def read(root: Path, instances: bool | None = None) -> Dataset:
    """Reads masks as COCO's objects: one a class and image, or one a number.

    Args:
        root: The folder.
        instances: Whether numbers are objects; None decides by whether classes are listed.

    Raises:
        UserError: an image has no mask, a mask cannot be read, or holds a number without a class.
    """
    found = find_layout(root) or _ade20k(root) or _plain(root, instances)
    assert found is not None
    name = f"instance masks ({found.format})" if found.instances else f"masks ({found.format})"
    first = 1 if found.instances else 0
    collector = Collector(name, root, found.classes, first, list(found.notes))
    to_class = dict(found.numbers)
    for part, pairs in found.parts.items():
        collector.notes += pairs.notes
        files = list(zip(pairs.images, pairs.masks, strict=True))
        for image, mask in progress(files, f"read {part}"):
            _add(collector, part, image, mask, found, to_class)
    dataset = collector.finish()
    if not found.instances:
        for each in dataset.parts.values():
            for category in each.content["categories"]:
                category["isthing"] = 0  # COCO's mark of classes without separate objects
    return dataset


def is_of_classes(part: Part) -> bool:
    """Whether the objects of a part are classes of pixels, not separate objects."""
    categories: Any = part.content.get("categories")
    is_list = isinstance(categories, list) and bool(categories)
    return is_list and all(isinstance(c, dict) and c.get("isthing") == 0 for c in categories)


def find_layout(root: Path) -> MaskFolders | None:
    """Returns the masks of a folder in a layout of others, or None.

    Raises:
        UserError: an image has no mask, or a list of classes is damaged.
    """
    for find in (_cityscapes, _voc, _roboflow, _coloured):
        found = find(root)
        if found is not None:
            if not any(pairs.images for pairs in found.parts.values()):
                raise UserError(f"{root}: {found.format} without an image that has a mask")
            return found
    return None


def _add(
    collector: Collector,
    part: str,
    image: Path,
    mask: Path,
    found: MaskFolders,
    to_class: dict[int, int],
) -> None:
    entry = collector.add_image(part, image)
    if entry is None:
        return
    numbers = found.read(mask)
    if numbers.shape != (entry["height"], entry["width"]):
        raise ImageError(
            f"{mask}: {numbers.shape[1]}x{numbers.shape[0]} pixels, but its image {image} has "
            f"{entry['width']}x{entry['height']}"
        )
    for number, counts in encode_numbers(numbers).items():
        if found.instances:
            name = "" if number == 0 else found.classes[0]
        elif number not in to_class:
            raise ImageError(f"{mask}: holds {number}, which is no class")
        else:
            name = "" if to_class[number] == IGNORED else found.classes[to_class[number]]
        if name:
            shape = {"size": list(numbers.shape), "counts": counts}
            collector.add_object(part, entry, name, None, shape)


def encode_numbers(numbers: NDArray[np.uint16]) -> dict[int, list[int]]:
    """Returns COCO's uncompressed counts of the pixels of each number in a mask (H, W)."""
    flat = numbers.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
    found = {}
    for group in groups:
        edges = np.stack([starts[group], ends[group]], 1).ravel()
        counts = np.diff(edges, prepend=0).tolist()
        rest = flat.size - int(edges[-1])
        found[int(values[group[0]])] = counts + ([rest] if rest else [])
    return found


def _cityscapes_folder(root: Path) -> Path | None:
    folders = [root / name for name in ("gtFine", "gtCoarse")]
    is_there = os.path.isdir(root / "leftImg8bit")
    return next((f for f in folders if is_there and os.path.isdir(f)), None)


def _cityscapes(root: Path) -> MaskFolders | None:
    folder = _cityscapes_folder(root)
    if folder is None:
        return None
    names = list(CITYSCAPES.values())
    numbers = dict.fromkeys((*range(_CITYSCAPES_NUMBERS), 255), IGNORED)
    numbers |= {number: names.index(name) for number, name in CITYSCAPES.items()}
    parts = {}
    whole = root / "leftImg8bit"
    for part in ("train", "val"):
        images = whole / part
        if not os.path.isdir(images):
            continue
        found = list_images(images).images
        parts[part] = _match(found, partial(_cityscapes_mask, images, folder / part, folder.name))
    note = f"{root}: Cityscapes; of its 34 numbers, the 19 classes of the benchmark are used"
    notes = (note, *describe_beside(whole, [whole / part for part in parts]))
    return MaskFolders("Cityscapes", parts, names, tuple(numbers.items()), None, notes)


def _cityscapes_mask(images: Path, masks: Path, kind: str, image: Path) -> Path:
    stem = image.stem.removesuffix("_leftImg8bit")
    return masks / image.parent.relative_to(images) / f"{stem}_{kind}_labelIds.png"


def _voc(root: Path) -> MaskFolders | None:
    masks = root / "SegmentationClass"
    if not os.path.isdir(masks):
        return None
    colours = find_colours(root)
    names = list(VOC_CLASSES) if colours is None else colours.names
    sets = root / "ImageSets" / "Segmentation"
    lists = {part: sets / f"{part}.txt" for part in ("train", "val", "test")}
    lists = {part: path for part, path in lists.items() if os.path.isfile(path)}
    images = {path.stem: path for path in list_images(root / "JPEGImages").images}
    if lists:
        stems = {part: read_text_file(path, 2**26).split() for part, path in lists.items()}
    else:
        stems = {"train": sorted(p.stem for p in list_images(masks).images if p.stem in images)}
    parts, gone = {}, 0
    for part, wanted in stems.items():
        there = [stem for stem in wanted if stem in images and (masks / f"{stem}.png").is_file()]
        gone += len(wanted) - len(there)
        parts[part] = Pairs([images[s] for s in there], [masks / f"{s}.png" for s in there], ())
    notes = [f"{root}: {gone} names of ImageSets/Segmentation without image or mask, left out"]
    kind = "Pascal VOC's SegmentationClass"
    return MaskFolders(
        kind, parts, names, _plain_numbers(names), colours, tuple(notes if gone else [])
    )


def _roboflow(root: Path) -> MaskFolders | None:
    folders = {
        part: at for part, at in part_folders(root).items() if (at / "_classes.csv").is_file()
    }
    if not folders:
        return None
    lists = {part: _roboflow_classes(at / "_classes.csv") for part, at in folders.items()}
    (first, *others) = lists.values()
    if any(other != first for other in others):
        raise UserError(f"{root}: the _classes.csv of its parts differ; make them equal")
    parts = {}
    for part, folder in folders.items():
        images = [p for p in list_images(folder).images if not p.stem.endswith("_mask")]
        parts[part] = _match(images, lambda image: image.with_name(f"{image.stem}_mask.png"))
    numbers = tuple((number, i) for i, number in enumerate(first))
    notes = tuple(describe_beside(root, folders.values()))
    return MaskFolders("Roboflow", parts, list(first.values()), numbers, None, notes)


def _roboflow_classes(path: Path) -> dict[int, str]:
    rows = [line.partition(",") for line in read_lines(path)[1:] if line]
    try:
        return {int(number): clean_name(name) for number, _, name in rows}
    except ValueError:
        raise UserError(f"{path}: must have a number and a class a line, after a title") from None


def _coloured(root: Path) -> MaskFolders | None:
    if not (os.path.isdir(root / "images") and os.path.isdir(root / "masks")):
        return None
    colours = find_colours(root)
    if colours is None or (os.path.isfile(root / "classes.txt") and not _has_colours(root)):
        return None
    kind, (parts, notes) = f"colours of {colours.source.name}", _pair(root)
    return MaskFolders(kind, parts, colours.names, _plain_numbers(colours.names), colours, notes)


def _has_colours(root: Path) -> bool:
    """Whether the first mask has colours; else classes.txt says what its numbers mean."""
    try:
        with Image.open(list_images(root / "masks").images[0], formats=FORMATS) as mask:
            return mask.mode in ("RGB", "RGBA")
    except (IndexError, OSError):  # reported where it is read
        return False


def _ade20k(root: Path) -> MaskFolders | None:
    if not os.path.isdir(root / "annotations" / "training"):
        return None
    names, path = [str(number) for number in range(1, 151)], root / "objectInfo150.txt"
    if os.path.isfile(path):
        names = [clean_name(line.split("\t")[-1]) for line in read_lines(path)[1:] if line]
    folders = {"train": "training", "val": "validation"}
    parts = {
        part: pair_masks(root / "images" / name, root / "annotations" / name)
        for part, name in folders.items()
        if os.path.isdir(root / "images" / name)
    }
    numbers = ((0, IGNORED), (255, IGNORED), *((i, i - 1) for i in range(1, len(names) + 1)))
    return MaskFolders("ADE20K", parts, names, numbers)


def _plain(root: Path, instances: bool | None) -> MaskFolders:
    """Returns `images/` and `masks/`; without class names the numbers decide what they are."""
    (parts, notes), listed = _pair(root), root / "classes.txt"
    if os.path.isfile(listed) and not instances:
        names = read_names(listed).names
        return MaskFolders("classes.txt", parts, names, _plain_numbers(names), None, notes)
    if instances is None:
        files = [mask for pairs in parts.values() for mask in pairs.masks]
        numbers = {n for path in files for n in np.unique(load_labels(path)).tolist()}
        instances = not numbers <= {0, 1} and not numbers <= {0, 255}
    if instances:
        note = (
            f"{root}: without classes.txt, each number of a mask is taken as an object, 0 is none"
        )
        notes = (note, *notes)
        return MaskFolders("one number an object", parts, ["object"], (), None, notes, True)
    note = f"{root}: the masks hold two numbers, taken as {BINARY[0]} and {BINARY[1]}"
    numbers_of = ((0, 0), (1, 1), (255, 1))
    return MaskFolders("two numbers", parts, list(BINARY), numbers_of, None, (note, *notes))


def _plain_numbers(names: list[str]) -> tuple[tuple[int, int], ...]:
    return (*((i, i) for i in range(len(names))), (IGNORED, IGNORED))


def _pair(root: Path) -> tuple[dict[str, Pairs], tuple[str, ...]]:
    """Returns the images and masks of the parts of `images/`, or of all of it, and notes."""
    images, masks = root / "images", root / "masks"
    folders = part_folders(images)
    parts = {
        part: pair_masks(folder, masks / folder.relative_to(images))
        for part, folder in folders.items()
    }
    return parts, tuple(describe_beside(images, folders.values()))


def _match(images: list[Path], mask_of: Callable[[Path], Path]) -> Pairs:
    """Returns images with their masks; images without are left out with a note."""
    masks = {image: mask_of(image) for image in images}
    kept = [image for image in images if os.path.isfile(masks[image])]
    lost = [image for image in images if image not in set(kept)]
    note = f"{len(lost)} images without a mask, left out (first: {lost[0]})" if lost else ""
    return Pairs(kept, [masks[image] for image in kept], (note,) if note else ())
