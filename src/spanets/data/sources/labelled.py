"""Lists all images of a folder, labelled by class folders where there are, for `embed` and `stats`.

The rules for parts and classes are those of `spanets.data.sources.folder`. Training leaves out an
image without a class; here it is listed without a label.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spanets.data.class_names import normal
from spanets.data.sources.folder import part_folders
from spanets.data.sources.folder_paths import existing_folder, names_in, subfolders
from spanets.data.sources.listed_folder import describe_lists_above, is_listed, listed_parts
from spanets.data.sources.runs_among_images import holds_only_runs
from spanets.data.split_list import SplitList
from spanets_runtime.errors import UserError
from spanets_runtime.listing import Listing, list_images, listing_arrays


@dataclass
class Listed:
    """Images with class and part; lists but `notes`, `empty` and names have one entry per image.

    Attributes:
        images: Paths.
        names: Paths below the folder that was given, with forward slashes.
        classes: Names of the class folders, "" for none.
        parts: "train", "val" or "test", "" for none.
        notes: Lines about what was left out or has no class.
        empty: Class folders without images.
        groups, folds: Group and fold of each image, as a table's columns say; empty without them.
        targets: Other targets than a class, (images, columns), or None.
        target_names: Names of their columns.
    """

    images: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    targets: NDArray[Any] | None = None
    target_names: list[str] = field(default_factory=list)

    def add(self, images: list[Path], root: Path | None, label: str = "", part: str = "") -> None:
        """Adds images of one class and part; without a root, they are named by their file names."""
        self.images += images
        self.names += [path.name for path in images] if root is None else names_in(root, images)
        self.classes += [normal(label)] * len(images)
        self.parts += [part] * len(images)

    def keep(self, indices: Sequence[int]) -> None:
        """Keeps the images at these indices only."""
        self.images = [self.images[i] for i in indices]
        self.names = [self.names[i] for i in indices]
        self.classes = [self.classes[i] for i in indices]
        self.parts = [self.parts[i] for i in indices]
        self.groups = [self.groups[i] for i in indices] if self.groups else []
        self.folds = [self.folds[i] for i in indices] if self.folds else []
        self.targets = None if self.targets is None else self.targets[list(indices)]

    def follow(self, split: SplitList, model: str) -> bool:
        """Takes the parts of images without one from a run's split list; returns whether it did."""
        if any(self.parts):
            return False
        self.parts = [split.parts.get(name, "") for name in self.names]
        found = sum(map(bool, self.parts))
        if found:
            rest = len(self.parts) - found
            others = f"; {rest} others are not listed there and belong to no part" * bool(rest)
            self.notes.append(f"{model}: parts of {found} images from {split.path}{others}")
        return bool(found)


def gather_labelled(paths: Iterable[str | os.PathLike[str]]) -> Listed:
    """Lists files, and folders at any depth, in the order given; a folder's images are sorted.

    Files are not opened here; reading them later reports their errors.

    Raises:
        UserError: a folder holds no images, cannot be read, or has two folders for one part.
    """
    listed = Listed()
    for path in map(Path, paths):
        if os.path.isdir(path):
            _add_folder(existing_folder(path), listed)
        else:
            listed.add([path], None)
    return listed


def _add_folder(root: Path, listed: Listed) -> None:
    """Adds the images of a folder; NumPy arrays if it has no others."""
    notes, empty = list(listed.notes), list(listed.empty)
    try:
        _add_images(root, listed)
    except UserError as error:
        listed.notes, listed.empty = notes, empty
        with listing_arrays():
            if not list_images(root).images:
                raise error from None
            _add_images(root, listed)


def _add_images(root: Path, listed: Listed) -> None:
    if is_listed(root):
        by_lists = listed_parts(root)
        for name, samples in by_lists.items():
            listed.images += [Path(str(image)) for image in samples.images]
            listed.names += names_in(root, samples.images)
            listed.classes += [samples.classes[label] for label in samples.labels]
            listed.parts += ["" if name == "train" and len(by_lists) == 1 else name] * len(samples)
        listed.notes += samples.notes
        return
    before = len(listed.images)
    parts = part_folders(root)
    for part, folder in parts.items():
        _add_classes(root, folder, part, listed)
    if not parts:
        _add_classes(root, root, "", listed)
    else:
        _add_beside_parts(root, list(parts.values()), listed)
    added = len(listed.images) - before
    if not added:
        raise UserError("; ".join([f"{root}: a folder without images", *listed.notes]))
    loose = [i for i in range(before, len(listed.images)) if not listed.classes[i]]
    if loose and len(loose) < added:
        _note(listed, root, len(loose), "in no class folder, without a label", loose[0])
    listed.notes += describe_lists_above(root)


def _add_classes(root: Path, folder: Path, part: str, listed: Listed) -> None:
    """Adds the class folders of a folder, then the images beside them."""
    for inner in subfolders(folder):
        if holds_only_runs(inner):
            listed.notes.append(f"{root}: left out, because it holds a run: {inner}")
        else:
            found = list_images(inner)
            _add(found, root, listed, inner.name, part)
            if not found.images:
                listed.empty.append(inner)
    _add(list_images(folder, recursive=False), root, listed, "", part)


def _add_beside_parts(root: Path, parts: list[Path], listed: Listed) -> None:
    """Adds what lies beside the folders of parts, without label and part."""
    before = len(listed.images)
    for folder in subfolders(root):
        if folder not in parts:
            _add(list_images(folder), root, listed)
    _add(list_images(root, recursive=False), root, listed)
    if count := len(listed.images) - before:
        _note(listed, root, count, "beside the parts, in none of them", before)


def _add(found: Listing, root: Path, listed: Listed, label: str = "", part: str = "") -> None:
    listed.add(found.images, root, label, part)
    listed.notes += found.notes()


def _note(listed: Listed, root: Path, count: int, what: str, example: int) -> None:
    images = f"{count} image{'s' * (count > 1)}"
    listed.notes.append(f"{root}: {images} {what}, such as {listed.images[example]}")
