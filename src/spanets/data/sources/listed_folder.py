"""Reads folders whose text files list images, classes and parts, as CUB-200-2011's and NABirds' do.

    root/images/                 the images, at any depth
    root/images.txt              "1 001.Albatross/a.jpg": number and path of each image
    root/image_class_labels.txt  "1 1": number of each image, number of its class
    root/classes.txt             "1 001.Albatross": number and name of each class; or no such file
    root/train_test_split.txt    "1 0": number of each image, 1 for training; or no such file

Numbers may be any words without spaces. Boxes, body parts and attributes are not read.

Sources: Wah et al., "The Caltech-UCSD Birds-200-2011 dataset", 2011; Van Horn et al., CVPR 2015.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from spanets.data.class_names import normal
from spanets.data.samples import Samples
from spanets.data.sources.folder_paths import existing_folder
from spanets.data.sources.table_files import find_files
from spanets_runtime.errors import UserError
from spanets_runtime.listing import list_images

IMAGES, LABELS, CLASSES, SPLIT = (
    "images.txt",
    "image_class_labels.txt",
    "classes.txt",
    "train_test_split.txt",
)


def is_listed(root: str | os.PathLike[str]) -> bool:
    """Returns whether a folder has lists of its images and their classes."""
    folder = Path(os.path.expanduser(root))
    return (folder / IMAGES).is_file() and (folder / LABELS).is_file()


def describe_lists_above(root: Path) -> list[str]:
    """Returns a line about lists in the folder above, or none."""
    above = root.resolve().parent
    if not is_listed(above):
        return []
    return [f"{root}: its images are listed in {above}, perhaps with a split; name that folder"]


def listed_parts(root: str | os.PathLike[str]) -> dict[str, Samples]:
    """Lists the images by part, "train" and perhaps "test", in the order of the lists.

    Classes are in the order of their list; those without images are left out, with a note.

    Raises:
        UserError: a list is damaged, the lists disagree, images are missing or outside of the
            folder, or a class has no training images.
    """
    root = existing_folder(root)
    paths = _read(root / IMAGES)
    labels = _of_images(_read(root / LABELS), paths, root / LABELS)
    images, notes = _find(root, paths)
    named = (root / CLASSES).is_file()
    names = _read(root / CLASSES) if named else {number: number for number in labels.values()}
    if unknown := next((number for number in labels.values() if number not in names), None):
        raise UserError(f"{root / LABELS}: class {unknown} is not in {root / CLASSES}")
    _refuse_same_names(names, root)
    present = set(labels.values())
    order = [number for number in names if number in present]
    classes = [normal(names[number]) for number in order]
    numbers = {number: place for place, number in enumerate(order)}
    if empty := len(names) - len(order):
        notes.append(f"{root}: {empty:,} classes of {CLASSES} left out, because no image has them")
    samples = Samples(images, [numbers[labels[key]] for key in paths], classes)
    parts = {"train": samples}
    if (root / SPLIT).is_file():
        parts = _divide(samples, _of_images(_read(root / SPLIT), paths, root / SPLIT), root)
        if lacking := [c for c, count in parts["train"].counts().items() if not count]:
            raise UserError(f"{root / SPLIT}: class {lacking[0]!r} has no training images")
    counted = ", ".join(f"{len(found):,} for {part}" for part, found in parts.items())
    notes.insert(0, f"{root}: {IMAGES} and {LABELS} list {counted}, of {len(classes):,} classes")
    return {part: found.noted(notes) for part, found in parts.items()}


def _divide(samples: Samples, trained: dict[str, str], root: Path) -> dict[str, Samples]:
    flags = list(trained.values())
    if wrong := next((flag for flag in flags if flag not in ("0", "1")), None):
        raise UserError(f"{root / SPLIT}: {wrong!r}, allowed: 1 for training, 0 for testing")
    rows: dict[str, list[int]] = {"train": [], "test": []}
    for row, flag in enumerate(flags):
        rows["train" if flag == "1" else "test"].append(row)
    if not rows["train"]:
        raise UserError(f"{root / SPLIT}: lists no image for training")
    return {part: samples.subset(found) for part, found in rows.items() if found}


def _find(root: Path, paths: dict[str, str]) -> tuple[list[Path], list[str]]:
    """Returns the image files, and messages about odd paths and images that are not listed."""
    folder, lines = root / "images", list(paths.values())
    found = find_files(lines, folder)
    for rows, what in ((found.outside, "leads out of"), (found.missing, "is not in")):
        if rows:
            raise UserError(
                f"{root / IMAGES}: {lines[rows[0]]} {what} {folder}"
                + (f", and {len(rows) - 1:,} others" if len(rows) > 1 else "")
            )
    images = [folder / name for name in found.names if name is not None]
    if len(set(images)) < len(images):
        twice = Counter(images).most_common(1)[0][0]
        raise UserError(f"{root / IMAGES}: lists {twice} twice; keep one line")
    notes = [f"{root / IMAGES}: {note}" for note in found.notes]
    others = list_images(folder).images
    if unlisted := sorted(set(others) - set(images)):
        notes.append(
            f"{folder}: {len(unlisted):,} images left out that {IMAGES} does not list, such as "
            f"{unlisted[0]}"
        )
    return images, notes


def _of_images(values: dict[str, str], paths: dict[str, str], path: Path) -> dict[str, str]:
    """Returns the values in the order of the images.

    Raises:
        UserError: an image has no value, or there is one for an image that is not listed.
    """
    if lacking := next((key for key in paths if key not in values), None):
        raise UserError(f"{path}: has no line for image {lacking} of {IMAGES}")
    if unknown := next((key for key in values if key not in paths), None):
        raise UserError(f"{path}: image {unknown} is not in {IMAGES}")
    return {key: values[key] for key in paths}


def _refuse_same_names(names: dict[str, str], root: Path) -> None:
    first: dict[str, str] = {}
    for number, name in names.items():
        if (other := first.setdefault(normal(name), number)) != number:
            raise UserError(f"{root / CLASSES}: classes {other} and {number} are both {name!r}")


def _read(path: Path) -> dict[str, str]:
    """Reads a list: a word that names the line's object, then a value that may hold spaces."""
    values: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        words = line.split(maxsplit=1)
        if len(words) < 2:
            raise UserError(f"{path}, line {number}: {line.strip()!r} needs a number and a value")
        key, value = words
        if key in values:
            raise UserError(f"{path}, line {number}: {key} has a line already")
        values[key] = value.strip()
    if not values:
        raise UserError(f"{path}: is empty")
    return values


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise UserError(f"{path}: is not text in UTF-8") from None
