"""Reads folders of images with one sub-folder per class, with or without folders for parts.

Either layout works, and images may lie at any depth below a class folder:

    root/cat/1.jpg                      root/train/cat/1.jpg
    root/dog/2.jpg                      root/val/dog/2.jpg

A folder with lists of its images and their classes is read by them; see `listed_folder`.
`parts.part_of` defines the names of parts, and `spanets_runtime.listing` which files and folders
count. Links to images are followed. Links to folders are followed for classes and parts only, not
deeper, so that a loop of links cannot trap the scan.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spanets.data.class_names import describe_twins, normal
from spanets.data.samples import Samples
from spanets.data.sources.folder_paths import existing_folder, names_in, subfolders
from spanets.data.sources.listed_folder import describe_lists_above, is_listed, listed_parts
from spanets.data.sources.parts import Part, name_parts, part_of
from spanets.data.sources.runs_among_images import holds_only_runs
from spanets.data.splits import split_parts
from spanets_runtime.errors import UserError, nearest
from spanets_runtime.listing import (
    describe_left_out,
    describe_links,
    is_image_name,
    list_entries,
    list_images,
)


@dataclass
class _LeftOut:
    """Files and folders of a data set that are left out.

    Attributes:
        suffixes: Suffixes of files that are not images, with counts.
        loose: Images outside of class folders.
        runs: Run folders.
        unused: Folders beside those of the parts.
        unlabelled: Part folders without class folders.
        links: Links to folders that are not followed.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    loose: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)

    def add_files(self, folder: Path) -> None:
        """Adds the files that lie beside class or part folders."""
        for entry in list_entries(folder):
            if entry.is_dir():
                continue
            if is_image_name(entry.name):
                self.loose.append(Path(entry.path))
            else:
                self.suffixes[os.path.splitext(entry.name)[1].lower()] += 1

    def notes(self, root: Path) -> tuple[str, ...]:
        """Returns a message for each kind."""
        notes = list(describe_left_out(root, Counter(dict(sorted(self.suffixes.items())))))
        notes += describe_links(root, self.links)
        if self.loose:
            count, one = len(self.loose), self.loose[0]
            notes.append(
                f"{root}: {count} image{'s' * (count > 1)} left out, in no class folder, such as "
                f"{one}"
            )
        if self.runs:
            names = ", ".join(map(str, self.runs))
            notes.append(f"{root}: left out, because it holds a run: {names}")
        if self.unlabelled:
            names = ", ".join(self.unlabelled)
            notes.append(f"{root}: left out, because it has no class folders: {names}")
        if self.unused:
            notes.append(f"{root}: left out, because they are not parts: {', '.join(self.unused)}")
        return tuple(notes)


def scan_folder(
    root: str | os.PathLike[str], least: int = 2, known: Sequence[str] | None = None
) -> Samples:
    """Lists the images of a folder of class folders, sorted by class and path.

    Args:
        root: The folder.
        least: Smallest number of classes allowed.
        known: Classes of a checkpoint; folders with these names are classes whatever they hold.

    Raises:
        UserError: there is no such folder, it has fewer class folders, one of them holds no images,
            or all hold the same sub-folders, so that they look like parts.
    """
    root, left_out = existing_folder(root), _LeftOut()
    samples = _scan_classes(root, left_out, least, known)
    samples = replace(samples, notes=samples.notes + left_out.notes(root))
    return samples.noted(describe_lists_above(root))


def folder_splits(
    root: str | os.PathLike[str], val_fraction: float = 0.25, seed: int = 0
) -> dict[str, Samples]:
    """Lists the images of a data set by part: "train", "val" and, if there is one, "test".

    Without a folder for validation, the training images are split, stratified by class. Test images
    are never used for validation.

    Args:
        root: See `folder_parts`.
        val_fraction: fraction of the training images for "val" if they are split, between 0 and 1.
        seed: seed of the split.

    Raises:
        UserError: see `folder_parts`; or there are too few images to split.
        ValueError: `val_fraction` is out of range.
    """
    parts = folder_parts(root)
    return split_parts(parts, str(root), val_fraction, seed, lambda images: names_in(root, images))


def folder_parts(
    root: str | os.PathLike[str], known: Sequence[str] | None = None
) -> dict[str, Samples]:
    """Lists the images of a data set by part: "train" and, if there are any, "val" and "test".

    A training folder is a part if it is alone or beside a validation or test folder. Other folders
    beside the parts are left out, with a note. Without parts, `root` holds class folders. The
    training images define the classes and their order; other parts may lack some classes. A folder
    with lists has the parts that they give.

    Args:
        root: The folder.
        known: See `scan_folder`.

    Raises:
        UserError: see `scan_folder`; or a part has a class that the training images lack, two
            folders stand for one part, or none is for training.
    """
    root, left_out = existing_folder(root), _LeftOut()
    if is_listed(root):
        return listed_parts(root)
    folders = part_folders(root)
    if not folders:
        return {"train": scan_folder(root, known=known)}
    if "train" not in folders:
        found = " and ".join(folder.name for folder in folders.values())
        raise UserError(f"{root}: has {found}, and no folder of images to train on, called train")
    parts: dict[str, Samples] = {}
    for part, folder in folders.items():  # "train" first
        if part == "train":
            parts[part] = _scan_classes(folder, left_out, 2, known)
        elif part == "test" and not subfolders(folder):  # many test sets have no public labels
            left_out.unlabelled.append(folder.name)
        else:
            parts[part] = _scan_part(folder, left_out, parts["train"].classes)
    left_out.add_files(root)
    used = {folder.name for folder in folders.values()}
    left_out.unused = [folder.name for folder in subfolders(root) if folder.name not in used]
    notes = left_out.notes(root)
    return {part: replace(found, notes=found.notes + notes) for part, found in parts.items()}


def part_folders(root: str | os.PathLike[str]) -> dict[Part, Path]:
    """Returns the folders of a data set's parts; empty if it has class folders and no parts.

    Raises:
        UserError: no such folder, or two of its folders stand for one part.
    """
    root = existing_folder(root)
    names = [folder.name for folder in subfolders(root)]
    found = {part_of(name) for name in names}
    parts, others = found - {None}, None in found
    if "train" in parts:
        # "train" may also be a class, as in bus, car, train.
        are_parts = len(parts) > 1 or not others
    else:  # "valid" and "test" may be classes, too
        are_parts = not others and any(subfolders(root / name) for name in names)
    return named_parts(root, names) if are_parts else {}


def named_parts(root: Path, names: Sequence[str]) -> dict[Part, Path]:
    """Returns the part folders among the sub-folders of a folder.

    Raises:
        UserError: two stand for one part.
    """
    return {part: root / name for part, name in name_parts(names, str(root)).items()}


def _scan_classes(
    root: Path, left_out: _LeftOut, least: int, known: Sequence[str] | None
) -> Samples:
    """Lists the images of class folders, which define the classes."""
    folders, notes = _class_folders(root, left_out)
    if not folders:
        raise UserError(f"{root}: {_without_classes(root)}; put the images in one folder a class")
    classes = list(folders)
    if len(classes) < least:
        inner = root / classes[0]
        remedy = f"name {inner}" if is_listed(inner) else "add the folders of the others"
        raise UserError(f"{root}: only one class, {classes[0]!r}; {remedy}")
    if not set(classes) <= set(known or ()):
        _refuse_unnamed_parts(root, classes)
    samples = _collect(root, folders, classes, left_out)
    if empty := [name for name, count in samples.counts().items() if count == 0]:
        reasons = "".join(f" ({note})" for note in left_out.notes(root))
        raise UserError(
            f"{root}: no images in class folder {', '.join(empty)}; add some or remove the folder"
            f"{reasons}"
        )
    return replace(samples, notes=notes)


def _scan_part(root: Path, left_out: _LeftOut, classes: list[str]) -> Samples:
    """Lists the images of a part, with the classes of the training images."""
    folders, notes = _class_folders(root, left_out)
    spelled = {normal(name): name for name in classes}
    for name in folders:
        if normal(name) not in spelled:
            hint = nearest(name, classes)
            raise UserError(f"{root / name}: class {name!r} has no training images{hint}")
    found = {spelled[normal(name)]: of_class for name, of_class in folders.items()}
    samples = _collect(root, found, classes, left_out)
    if not len(samples):
        raise UserError(f"{root}: no images in class folders; add some or remove the folder")
    return replace(samples, notes=notes)


def _class_folders(root: Path, left_out: _LeftOut) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Returns the folders of each class, sorted by name, and messages about odd names.

    A class has several folders if they spell one name in different Unicode forms.
    """
    spellings: dict[str, list[Path]] = {}
    for folder in subfolders(root):
        if holds_only_runs(folder):
            left_out.runs.append(folder)
        else:
            spellings.setdefault(normal(folder.name), []).append(folder)
    folders = {same[0].name: same for same in spellings.values()}
    notes = [
        f"{root}: {len(same)} folders are called {name!r}, in different Unicode spellings; they "
        "are one class"
        for name, same in folders.items()
        if len(same) > 1
    ]
    return folders, (*notes, *describe_twins(list(folders), str(root)))


def _refuse_unnamed_parts(root: Path, classes: Sequence[str]) -> None:
    """Refuses class folders that all hold the same sub-folders and no images, as parts do."""
    inside: list[str] | None = None
    for name in classes:
        entries = list_entries(root / name)
        folders = [entry.name for entry in entries if entry.is_dir()]
        if len(folders) < 2 or inside not in (None, folders):
            return
        if any(is_image_name(entry.name) for entry in entries if not entry.is_dir()):
            return
        inside = folders
    if inside is None or len(classes) < 2:
        return
    if all(part_of(name) for name in inside):
        remedy = f"put the parts outside: {inside[0]}/{classes[0]} and so on"
    else:
        remedy = (
            f"if {classes[0]} and {classes[1]} are parts, call them train and val or test; if they "
            "are classes, move their images out of the sub-folders"
        )
    raise UserError(
        f"{root}: its {len(classes)} folders ({_shorten(classes)}) all hold the same sub-folders "
        f"({_shorten(inside)}), as parts of a data set do; {remedy}"
    )


def _shorten(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _collect(
    root: Path, folders: dict[str, list[Path]], classes: list[str], left_out: _LeftOut
) -> Samples:
    images: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        for folder in folders.get(name, []):
            found = list_images(folder)
            images += found.images
            labels += [label] * len(found.images)
            left_out.suffixes += found.left_out
            left_out.links += found.links
    left_out.add_files(root)
    return Samples(images, labels, classes)


def _without_classes(root: Path) -> str:
    """Describes a folder that has no class folders."""
    entries = list_entries(root)
    if any(is_image_name(entry.name) for entry in entries):
        return "images, but no class folders"
    return "no class folders" if entries else "the folder is empty"
