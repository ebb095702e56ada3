"""Reads folders of images with one mask per image: a file of the same name with class numbers.

    root/images/train/1.jpg    root/masks/train/1.png     with parts, also val and test
    root/images/1.jpg          root/masks/1.png           without parts, to be split
    root/classes.txt           class names, one a line, in the order of their numbers from 0

    root/images/training/1.jpg      root/annotations/training/1.png     ADE20K, also validation
    root/objectInfo150.txt          its class names, in the last column

`data.sources.parts` defines other names of parts, `formats.pairs` other names of masks, and
`masks.values` the meaning of mask values. 255 means pixels to ignore, in training and evaluation.
In ADE20K's masks, 0 means that too, and the first class is 1.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spanets.data.class_lists import NameList, clean_name, read_lines, read_names
from spanets.data.run_data import RunData
from spanets.data.sources.parts import Part, name_parts
from spanets.data.splits import divide, stratified_split
from spanets.formats.colours import Colours
from spanets.formats.masks import MaskFolders, find_layout
from spanets.formats.pairs import pair_masks
from spanets.segmentation.masks.values import (
    IGNORED,
    Given,
    MaskValues,
    given_values,
    named_classes,
    plain_values,
)
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError
from spanets_runtime.labels import Labels, read_labels
from spanets_runtime.listing import list_entries, list_images

NAMES, ADE20K_NAMES = "classes.txt", "objectInfo150.txt"
"""Files that name the classes."""

ADE20K_CLASSES = 150

_ADE20K_PARTS = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class MaskedImages:
    """Image files with their masks.

    Attributes:
        images: The image files.
        masks: The mask of each image.
        classes: Class names, at most 255.
        values: The meaning of the mask values.
        notes: Messages about what was left out, renamed or changed, each with a count.
        names: Names of the images in the run's split list, or None if no split was drawn.
        colours: The colours of the classes, if masks have colours in place of numbers.
    """

    images: list[Path]
    masks: list[Path]
    classes: list[str]
    values: MaskValues
    notes: tuple[str, ...] = ()
    names: Sequence[str] | None = None
    colours: Colours | None = None

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Iterable[int]) -> "MaskedImages":
        """Returns the images at `indices`, in that order, with the same classes."""
        indices = list(indices)
        images, masks = [self.images[i] for i in indices], [self.masks[i] for i in indices]
        names = None if self.names is None else [self.names[i] for i in indices]
        return replace(self, images=images, masks=masks, names=names)

    def load_mask(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Decodes the mask of an image of this height and width.

        Returns:
            Class numbers from 0, or `IGNORED`, (H, W).

        Raises:
            ImageError: the mask cannot be read, has another size, or holds unknown mask values.
        """
        path = self.masks[index]
        numbers = self.read_mask(index).numbers
        if numbers.shape != size:
            raise ImageError(self.describe_sizes(index, size, numbers.shape))
        classes, unknown = self.values.to_classes(numbers)
        if unknown:
            shown = ", ".join(map(str, unknown[:5]))
            raise ImageError(
                f"{path}: has class number {shown}, but the {len(self.classes)} classes are "
                f"{self.values.describe()}"
            )
        return classes

    def read_mask(self, index: int) -> Labels:
        """Decodes the mask of an image to its numbers; colours become class numbers.

        Raises:
            ImageError: the mask cannot be read, or holds a colour that is not listed.
        """
        path = self.masks[index]
        return read_labels(path) if self.colours is None else Labels(self.colours.read(path), None)

    def describe_sizes(self, index: int, image: tuple[int, ...], mask: tuple[int, ...]) -> str:
        """Returns a message about an image and a mask of different sizes (height, width)."""
        return (
            f"{self.masks[index]}: {mask[1]}x{mask[0]} pixels, but its image "
            f"{self.images[index]} has {image[1]}x{image[0]}"
        )


def folder_parts(
    root: str | os.PathLike[str],
    num_classes: int | None = None,
    val_fraction: float | None = 0.25,
    seed: int = 0,
    mask_values: Given | None = None,
    classes: list[str] | None = None,
    run_data: RunData | None = None,
) -> dict[str, MaskedImages]:
    """Lists the images of a folder by part: "train", "val" and, if there is one, "test".

    Args:
        root: The folder.
        num_classes: Number of classes, used if there is no classes.txt.
        val_fraction: Fraction of the images for "val" if there is no such part; None does not
            split.
        seed: Seed of the split.
        mask_values: The recipe's `data.mask_values`.
        classes: Class names, used if there is no classes.txt.
        run_data: What the run recorded about its data; images keep the part in its split list.

    Raises:
        UserError: the folder or its images are missing, an image has no mask, or there are too
            few images to split.
        UsageError: the number of classes is unknown, or `mask_values` does not fit the classes.
    """
    root = Path(os.path.expanduser(root))  # no shell has expanded a "~" in a recipe
    layout = find_layout(root) if os.path.isdir(root) else None
    if layout is not None:
        parts = _other_parts(root, layout, num_classes, mask_values)
    else:
        parts = _plain_parts(root, num_classes, mask_values, classes)
    if "train" in parts and val_fraction is not None:
        parts |= _split(root, parts, val_fraction, seed, run_data)
    return parts


def ade20k_parts(
    root: str | os.PathLike[str], classes: list[str] | None = None
) -> dict[str, MaskedImages]:
    """Lists the images of ADE20K by part, "train" and "val", as unpacked from ADEChallengeData2016.

    Args:
        root: The folder.
        classes: Class names, used if there is no objectInfo150.txt.

    Raises:
        UserError: see `folder_parts`.
    """
    root = _existing(root)
    classes = _ade20k_classes(root / ADE20K_NAMES, classes)
    values = plain_values(len(classes), first=1)
    return {
        part: _pair(root / "images" / folder, root / "annotations" / folder, classes, values)
        for part, folder in _ADE20K_PARTS.items()
    }


def _plain_parts(
    root: Path, num_classes: int | None, mask_values: Given | None, classes: list[str] | None
) -> dict[str, MaskedImages]:
    """Lists `images/` and `masks/`; see `folder_parts`."""
    root = _existing(root)
    listed = _read_classes(root, num_classes, classes or named_classes(mask_values))
    classes = listed.names
    values = plain_values(len(classes))
    if mask_values is not None:
        values = given_values(mask_values, classes)
    parts = _named_parts(root, classes, values)
    if not parts:
        parts = {"train": _pair(root / "images", root / "masks", classes, values)}
    return {name: replace(part, notes=listed.notes + part.notes) for name, part in parts.items()}


def _other_parts(
    root: Path, found: MaskFolders, num_classes: int | None, mask_values: Given | None
) -> dict[str, MaskedImages]:
    """Returns the parts of a layout of others; a note names it and counts the images.

    Raises:
        UsageError: the recipe has another number of classes, or `data.mask_values`.
    """
    if mask_values is not None or num_classes not in (None, len(found.classes)):
        key = "mask_values" if mask_values is not None else "num_classes"
        raise UsageError(
            f"data.{key} does not go with {root}, {found.format} of {len(found.classes)} classes; "
            "leave it out"
        )
    counts = ", ".join(f"{name} {len(pairs.images)} images" for name, pairs in found.parts.items())
    note = f"{root}: masks, {found.format}; {counts}; classes {', '.join(found.classes)}"
    values = MaskValues(found.numbers)
    return {
        name: MaskedImages(
            pairs.images,
            pairs.masks,
            found.classes,
            values,
            (note, *found.notes, *(f"{root}: {name}: {line}" for line in pairs.notes)),
            colours=found.colours,
        )
        for name, pairs in found.parts.items()
        if pairs.images
    }


def _named_parts(root: Path, classes: list[str], values: MaskValues) -> dict[str, MaskedImages]:
    """Lists the images of part folders; returns an empty dict if there are none."""
    images, masks = root / "images", root / "masks"
    folders = name_parts(_folders_in(images), str(images))
    if not folders:
        return {}
    of_masks = {part: _masks_of(masks, part, name) for part, name in folders.items()}
    paired = dict(folders)
    # Many test sets have no public masks.
    if len(folders) > 1 and "test" in folders and not os.path.isdir(masks / of_masks["test"]):
        del paired["test"]
    parts = {
        part: _pair(images / name, masks / of_masks[part], classes, values)
        for part, name in paired.items()
    }
    notes = _describe_strays(images, folders.values())
    notes += _describe_strays(masks, of_masks.values())
    if len(paired) < len(folders):
        count = _count(list_images(images / folders["test"]).images)
        notes += (f"{images}: {count} of test left out, there are no masks of test",)
    return {part: replace(found, notes=notes + found.notes) for part, found in parts.items()}


def _folders_in(folder: Path) -> list[str]:
    return [entry.name for entry in list_entries(folder) if entry.is_dir()]


def _masks_of(masks: Path, part: Part, name: str) -> str:
    """Returns the folder name of a part's masks, which may be spelled differently."""
    if os.path.isdir(masks / name) or not os.path.isdir(masks):
        return name
    return name_parts(_folders_in(masks), str(masks)).get(part, name)


def _describe_strays(folder: Path, parts: Collection[str]) -> tuple[str, ...]:
    """Returns a note for each folder with images outside of the part folders."""
    listings = [list_images(folder, recursive=False)]
    listings += [list_images(folder / name) for name in _folders_in(folder) if name not in parts]
    return tuple(
        f"{found.folder}: {_count(found.images)} left out, outside of the part folders "
        f"({', '.join(parts)}), such as {found.images[0].name}"
        for found in listings
        if found.images
    )


def _count(images: Sequence[Path]) -> str:
    return f"{len(images)} image{'s' * (len(images) > 1)}"


def _pair(images: Path, masks: Path, classes: list[str], values: MaskValues) -> MaskedImages:
    """Finds the mask of each image of a part."""
    pairs = pair_masks(images, masks)
    return MaskedImages(pairs.images, pairs.masks, classes, values, pairs.notes)


def _split(
    root: Path, parts: dict[str, MaskedImages], fraction: float, seed: int, run_data: RunData | None
) -> dict[str, MaskedImages]:
    """Divides the images to train on, and by a run's list those to validate with as well."""
    listed = run_data is not None and run_data.split is not None and bool(run_data.split.parts)
    pool = [parts[name] for name in ("train", "val") if name in parts]
    if len(pool) > 1 and not listed:
        return {}
    images = [path for part in pool for path in part.images]
    names = [path.relative_to(root).as_posix() for path in images]
    draw = partial(stratified_split, [0] * len(images), fraction, seed)
    found = divide(images, names, draw, str(root), run_data)
    if not found.train or not found.val:
        raise UserError(
            f"{root}: {len(images)} images are too few for a val_fraction of {fraction}; "
            "add images or change it"
        )
    masks = [path for part in pool for path in part.masks]
    whole = replace(pool[0], images=images, masks=masks, names=names)
    whole = replace(whole, notes=(*whole.notes, *found.notes))
    return {"train": whole.subset(found.train), "val": whole.subset(found.val)}


def _existing(root: str | os.PathLike[str]) -> Path:
    root = Path(os.path.expanduser(root))
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such folder")
    if not os.path.isdir(root / "images"):
        raise UserError(
            f"{root}: has no folder images; masks lie beside it, see data.layout; nor is it "
            "Cityscapes (leftImg8bit), SegmentationClass, or Roboflow's (_classes.csv)"
        )
    return root


def _read_classes(root: Path, num_classes: int | None, named: list[str] | None) -> NameList:
    """Returns class names from classes.txt, else from the recipe, else numbers."""
    path = root / NAMES
    if os.path.lexists(path):
        listed = read_names(path)
    elif named is not None:
        listed = NameList(named)
    elif num_classes is not None:
        listed = NameList([str(number) for number in range(num_classes)])
    else:
        raise UsageError(
            f"{path}: no such file; write the class names there, one a line, from number 0, "
            "or set data.num_classes"
        )
    count = len(listed.names)
    if num_classes not in (None, count):
        where = path if os.path.lexists(path) else "data.mask_values"
        raise UsageError(f"data.num_classes is {num_classes}, but {where} names {count}")
    if not 1 < count <= IGNORED:
        raise UserError(
            f"{path}: names {count} class{'es' * (count != 1)}, must be 2 to {IGNORED}, a line "
            f"each; {IGNORED} is the number of pixels to ignore"
        )
    if len(set(listed.names)) < count:
        twice = next(name for name in listed.names if listed.names.count(name) > 1)
        raise UserError(f"{path}: names {twice!r} twice; give each class a name of its own")
    return listed


def _ade20k_classes(path: Path, named: list[str] | None) -> list[str]:
    if not os.path.lexists(path):
        return named or [str(number) for number in range(1, ADE20K_CLASSES + 1)]
    rows = [line.split("\t") for line in read_lines(path)[1:] if line]
    if len(rows) != ADE20K_CLASSES:
        raise UserError(f"{path}: names {len(rows)} classes, must be {ADE20K_CLASSES}")
    return [clean_name(row[-1]) for row in rows]
