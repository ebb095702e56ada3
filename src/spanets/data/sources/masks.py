"""Folders of images with a mask each: PNG files of the same stem, a class number a pixel.

    root/images/train/1.jpg    root/masks/train/1.png     and val, test likewise
    root/images/1.jpg          root/masks/1.png           to be split
    root/classes.txt           a class name a line, that of number 0 first

    root/images/training/1.jpg      root/annotations/training/1.png     ADE20K, and validation
    root/objectInfo150.txt          its class names, in the last column

The number 255 is no class: such pixels are neither learnt nor measured. In ADE20K's masks neither
is 0, and 1 is the first class.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spanets.data.kept import Kept
from spanets.data.splits import divide, stratified_split
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError, load_labels
from spanets_runtime.listing import find_images

IGNORED = 255
"""The class number of pixels that count for nothing."""

ADE20K_CLASSES = 150

PARTS = ("train", "val", "test")
_ADE20K_PARTS = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class MaskedImages:
    """Image files with their masks.

    Attributes:
        images: The files.
        masks: One for each.
        classes: Class names, at most 255.
        first: The number of the first class in the masks; smaller ones are ignored as well.
        names: What the images are called in the list of a split, or None where none was drawn.
        notes: Lines for people about what was left out, renamed or changed.
    """

    images: list[Path]
    masks: list[Path]
    classes: list[str]
    first: int = 0
    names: Sequence[str] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Iterable[int]) -> "MaskedImages":
        """Returns the images at `indices`, in that order, with the same classes."""
        indices = list(indices)
        images, masks = [self.images[i] for i in indices], [self.masks[i] for i in indices]
        names = None if self.names is None else [self.names[i] for i in indices]
        return replace(self, images=images, masks=masks, names=names)

    def load_mask(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Decodes a mask of an image of this height and width.

        Returns:
            Class numbers from 0 up, and `IGNORED`, (H, W).

        Raises:
            ImageError: an unreadable mask, one of another size, or numbers that are no class.
        """
        path = self.masks[index]
        labels = load_labels(path).astype(np.int64)
        if labels.shape != size:
            raise ImageError(
                f"{path}: {labels.shape[1]}x{labels.shape[0]} pixels, "
                f"but its image {self.images[index]} has {size[1]}x{size[0]}"
            )
        ignored = (labels == IGNORED) | (labels < self.first)
        labels = np.where(ignored, IGNORED, labels - self.first)
        if (wrong := np.unique(labels[~ignored & (labels >= len(self.classes))])).size:
            numbers = ", ".join(str(number + self.first) for number in wrong[:5])
            last = self.first + len(self.classes) - 1
            raise ImageError(
                f"{path}: has class number {numbers}, but the {len(self.classes)} classes are "
                f"{self.first} to {last} (and {IGNORED} for pixels to ignore)"
            )
        return labels.astype(np.uint8)


def folder_parts(
    root: str | os.PathLike[str],
    num_classes: int | None = None,
    val_fraction: float | None = 0.25,
    seed: int = 0,
    kept: Kept | None = None,
) -> dict[str, MaskedImages]:
    """Lists the images of a folder by part: "train", "val" and, if there is one, "test".

    Args:
        root: The folder.
        num_classes: How many there are, where no classes.txt names them.
        val_fraction: Share of the images that a split puts in "val", if there is no such part;
            None leaves them all in "train".
        seed: What the split depends on.
        kept: What a run knows: images stay in the part that its list says.

    Raises:
        UserError: no such folder, no images in it, an image without a mask, or too few to split.
        UsageError: the number of classes is unknown.
    """
    root = _existing(root)
    classes = _read_classes(root, num_classes)
    named = [part for part in PARTS if (root / "images" / part).is_dir()]
    parts = {part: _pair(root, "masks", part, part, classes) for part in named}
    if not parts:
        parts = {"train": _pair(root, "masks", "", "", classes)}
    if "train" in parts and val_fraction is not None:
        parts |= _split(root, parts, val_fraction, seed, kept)
    return parts


def ade20k_parts(root: str | os.PathLike[str]) -> dict[str, MaskedImages]:
    """Lists ADE20K's images, as ADEChallengeData2016 unpacks: "train" and "val".

    Raises:
        UserError: as for `folder_parts`.
    """
    root = _existing(root)
    classes = _ade20k_classes(root / "objectInfo150.txt")
    return {
        part: replace(_pair(root, "annotations", part, folder, classes), first=1)
        for part, folder in _ADE20K_PARTS.items()
    }


def _pair(root: Path, masks: str, part: str, folder: str, classes: list[str]) -> MaskedImages:
    """Finds the mask of each image of a part."""
    images = find_images(root / "images" / folder)
    relative = [path.relative_to(root / "images").with_suffix(".png") for path in images]
    expected = [root / masks / path for path in relative]
    if missing := [i for i, mask in enumerate(expected) if not mask.is_file()]:
        count, (first, *_) = len(missing), missing
        raise UserError(
            f"{root}: {count} of {len(images)} images without a mask, such as {images[first]} "
            f"({expected[first]}); add the masks or remove the images"
        )
    if len(set(expected)) < len(expected):
        twice = next(mask for mask in expected if expected.count(mask) > 1)
        raise UserError(f"{twice}: is the mask of several images; give them names of their own")
    return MaskedImages(images, expected, classes)


def _split(
    root: Path, parts: dict[str, MaskedImages], fraction: float, seed: int, kept: Kept | None
) -> dict[str, MaskedImages]:
    """Divides the images to train on, and by a run's list those to validate with as well."""
    listed = kept is not None and kept.split is not None and bool(kept.split.parts)
    pool = [parts[name] for name in ("train", "val") if name in parts]
    if len(pool) > 1 and not listed:
        return {}
    images = [path for part in pool for path in part.images]
    names = [path.relative_to(root).as_posix() for path in images]
    draw = partial(stratified_split, [0] * len(images), fraction, seed)
    found = divide(images, names, draw, str(root), kept)
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
    root = Path(os.path.expanduser(root))  # a "~" in a recipe has met no shell
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    if not (root / "images").is_dir():
        raise UserError(f"{root}: has no folder images; masks lie beside it, see data.layout")
    return root


def _read_classes(root: Path, num_classes: int | None) -> list[str]:
    path = root / "classes.txt"
    if path.is_file():
        classes = [line.strip() for line in _read_text(path).splitlines() if line.strip()]
        if num_classes not in (None, len(classes)):
            raise UsageError(f"data.num_classes is {num_classes}, but {path} names {len(classes)}")
    elif num_classes is None:
        raise UsageError(
            f"{path}: no such file; name a class a line there, that of number 0 first, "
            "or set data.num_classes"
        )
    else:
        classes = [str(number) for number in range(num_classes)]
    if not 1 < len(classes) <= IGNORED:
        raise UserError(f"{path}: {len(classes)} classes, must be 2 to {IGNORED}")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"{path}: names {twice!r} twice; give each class a name of its own")
    return classes


def _ade20k_classes(path: Path) -> list[str]:
    if not path.is_file():
        return [str(number) for number in range(1, ADE20K_CLASSES + 1)]
    rows = [line.split("\t") for line in _read_text(path).splitlines()[1:] if line.strip()]
    if len(rows) != ADE20K_CLASSES:
        raise UserError(f"{path}: names {len(rows)} classes, must be {ADE20K_CLASSES}")
    return [row[-1].strip() for row in rows]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file (UTF-8)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
