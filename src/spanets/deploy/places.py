"""Moves the files of an export to their place, each atomically; a target may have several."""

import shutil
from functools import partial
from pathlib import Path
from typing import BinaryIO

from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import check_place, write_atomically


def check(path: Path) -> None:
    """Raises a UserError if an export cannot be written at a path, before the work for it starts.

    A folder, such as a package for Core ML, is not replaced.
    """
    if path.suffix == ".mlpackage" and path.exists():
        raise UserError(f"{path}: exists; remove it, or choose another --out")
    check_place(path)


def move(folder: Path, path: Path) -> dict[str, int]:
    """Moves the files of a folder beside a path, which is written last.

    Returns:
        The written paths with their sizes in bytes.

    Raises:
        UsageError: a file beside the path exists, but the path does not. If both exist, they are
            taken for those of an earlier export, and replaced.
        UserError: the disk is full, or a path cannot be written.
    """
    found = sorted(folder.iterdir(), key=lambda file: (file.name == path.name, file.name))
    for file in found:
        place = path.with_name(file.name)
        if place != path and place.exists() and not path.exists():
            raise UsageError(f"{place}: exists and would be replaced; choose another --out")
    return {str(path.with_name(file.name)): _put(file, path.with_name(file.name)) for file in found}


def _put(source: Path, place: Path) -> int:
    if source.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, place)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise UserError(f"{place}: cannot be written ({error.strerror})") from error
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    write_atomically(place, partial(_copy, source))
    return place.stat().st_size


def _copy(source: Path, file: BinaryIO) -> None:
    with source.open("rb") as content:
        shutil.copyfileobj(content, file)
