"""Folders of images, one sub-folder a class, with or without a division into train and val.

Either of these, and images may lie any number of folders deep:

    root/cat/1.jpg                      root/train/cat/1.jpg
    root/dog/2.jpg                      root/val/dog/2.jpg

Hidden files and folders (whose name starts with a dot) are skipped, and so are files without one
of the `IMAGE_SUFFIXES`. Links to images are followed. Links to folders are followed where they
stand for a class or a part and nowhere deeper, so that no loop of links can trap the scan.
"""

import os
from pathlib import Path
from typing import NoReturn

from spanets.data.samples import Samples
from spanets.data.splits import split_parts
from spanets_runtime.errors import UserError, nearest
from spanets_runtime.images import IMAGE_SUFFIXES

VAL_NAMES = ("val", "valid", "validation")


def scan_folder(root: str | os.PathLike[str]) -> Samples:
    """Lists the images of a folder of class folders, sorted by class and path.

    Raises:
        UserError: there is no such folder, it has fewer than two class folders, or one of them
            holds no images.
    """
    root = existing_folder(root)
    classes = [folder.name for folder in subfolders(root)]
    if not classes:
        raise UserError(f"{root}: {_without_classes(root)}; put the images in one folder a class")
    if len(classes) == 1:
        raise UserError(f"{root}: only one class, {classes[0]!r}; add the folders of the others")
    samples = _collect(root, classes)
    empty = [name for name, count in samples.counts().items() if count == 0]
    if empty:
        raise UserError(
            f"{root}: no images in class folder {', '.join(empty)}; add some or remove the folder"
        )
    return samples


def folder_splits(
    root: str | os.PathLike[str], val_fraction: float = 0.25, seed: int = 0
) -> dict[str, Samples]:
    """Lists the images of a data set by part: "train", "val" and, if there is one, "test".

    A `train/` folder beside a `val/`, `valid/`, `validation/` or `test/` folder, or alone, is
    taken as a part; other folders beside it are ignored. Without these names, `root` is one folder
    of classes. What has no folder for validation is split by class: test images are never used for
    validation. Classes and their order are those of the training images; other parts may lack
    some of them.

    Args:
        root: the folder.
        val_fraction: share of the images that a split puts in "val", between 0 and 1.
        seed: what the split depends on.

    Raises:
        UserError: as for `scan_folder`; or a part has a class that the training images lack, two
            folders could be the one for validation, or there are too few images to split.
        ValueError: `val_fraction` is out of range.
    """
    return split_parts(folder_parts(root), str(root), val_fraction, seed)


def folder_parts(root: str | os.PathLike[str]) -> dict[str, Samples]:
    """Lists the images by part as `folder_splits` does, but leaves "train" as it is without "val".

    Raises:
        UserError: as for `folder_splits`, but for too few images to split.
    """
    root = existing_folder(root)
    names = [folder.name for folder in subfolders(root)]
    others = [name for name in names if name in (*VAL_NAMES, "test")]
    # "train" is also a good name for a class, as in bus, car, train.
    if not ("train" in names and (others or names == ["train"])):
        return {"train": scan_folder(root)}

    val_folders = [name for name in others if name != "test"]
    if len(val_folders) > 1:
        raise UserError(f"{root}: {' and '.join(val_folders)} are both for validation; keep one")
    parts = {"train": scan_folder(root / "train")}
    if val_folders:
        parts["val"] = _scan_part(root / val_folders[0], parts["train"].classes)
    if "test" in others:
        parts["test"] = _scan_part(root / "test", parts["train"].classes)
    return parts


def _scan_part(root: Path, classes: list[str]) -> Samples:
    """Lists the images of a part whose classes are given by the training images."""
    for folder in subfolders(root):
        if folder.name not in classes:
            hint = nearest(folder.name, classes)
            raise UserError(f"{folder}: class {folder.name!r} has no training images{hint}")
    samples = _collect(root, classes)
    if not len(samples):
        raise UserError(f"{root}: no images in class folders; add some or remove the folder")
    return samples


def _collect(root: Path, classes: list[str]) -> Samples:
    images: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images(root / name) if (root / name).is_dir() else []
        images += found
        labels += [label] * len(found)
    return Samples(images, labels, classes)


def _images(folder: Path) -> list[Path]:
    """Returns the image files anywhere below a folder, sorted."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if _is_image(name)]
    return sorted(found)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def existing_folder(root: str | os.PathLike[str]) -> Path:
    """Returns the path of a folder that is there.

    Raises:
        UserError: nothing is there, or a file.
    """
    root = Path(os.path.expanduser(root))  # a "~" in a recipe has met no shell
    if not root.exists():
        raise UserError(f"{root}: no such folder")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; give the folder that holds one folder a class")
    return root


def subfolders(root: Path) -> list[Path]:
    """Returns the folders directly in a folder, hidden ones left out, sorted by name.

    Raises:
        UserError: the folder cannot be read.
    """
    folders = [entry for entry in _entries(root) if entry.is_dir()]
    return sorted(folders, key=lambda folder: folder.name)


def _entries(root: Path) -> list[Path]:
    """Returns what a folder holds, hidden entries left out."""
    try:
        return [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        _unreadable(error)


def _without_classes(root: Path) -> str:
    """Says what a folder without sub-folders is like."""
    entries = _entries(root)
    if any(_is_image(entry.name) for entry in entries):
        return "images, but no class folders"
    return "no class folders" if entries else "the folder is empty"


def _unreadable(error: OSError) -> NoReturn:
    """Stops the scan, where `os.walk` alone would skip the folder without a word."""
    raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
