"""Folders of images: one that must exist, its sub-folders, and the names of images below it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spanets_runtime.errors import UserError
from spanets_runtime.listing import list_entries


def existing_folder(root: str | os.PathLike[str]) -> Path:
    """Returns the path of an existing folder.

    Raises:
        UserError: the path does not exist, or is a file.
    """
    root = Path(os.path.expanduser(root))  # no shell has expanded a "~" in a recipe
    if not root.exists():
        raise UserError(f"{root}: no such folder")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; give the folder that holds one folder a class")
    return root


def subfolders(root: Path) -> list[Path]:
    """Returns the sub-folders of a folder, sorted by name, without hidden and system folders.

    Raises:
        UserError: the folder cannot be read.
    """
    return [Path(entry.path) for entry in list_entries(root) if entry.is_dir()]


def names_in(root: str | os.PathLike[str], images: Sequence[Any]) -> list[str]:
    """Returns the paths of image files below a folder, with forward slashes."""
    before = len(os.fspath(existing_folder(root) / "x")) - 1
    return [os.fspath(image)[before:].replace(os.sep, "/") for image in images]
