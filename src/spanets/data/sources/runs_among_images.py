"""Recognises run folders among images: they hold plots, and are not classes."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from spanets.runs.file_names import RECIPE, RECORD
from spanets_runtime.errors import UsageError
from spanets_runtime.listing import is_system


def holds_only_runs(folder: Path, depth: int = 3) -> bool:
    """Whether a folder is a run folder, or holds nothing but run folders.

    Args:
        folder: The folder.
        depth: Number of folder levels to search.
    """
    if (folder / RECIPE).is_file() and (folder / RECORD).is_file():
        return True
    found = False
    with suppress(OSError), os.scandir(folder) as entries:  # the image scan reports the error
        for entry in entries:
            if is_system(entry.name):
                continue
            if not depth or not entry.is_dir() or not holds_only_runs(Path(entry.path), depth - 1):
                return False
            found = True
    return found


def refuse_inside(out: Path, scanned: Iterable[Path]) -> None:
    """Refuses a run folder inside a folder that is scanned for images, unless it is hidden.

    Raises:
        UsageError: `out` lies in one of the scanned folders.
    """
    place = Path(os.path.expanduser(out)).resolve()
    for folder in scanned:
        root = folder.resolve()
        if place.is_relative_to(root) and not any(map(is_system, place.relative_to(root).parts)):
            raise UsageError(
                f"--out {out}: lies in {folder}, whose folders are classes of images; choose a "
                "folder outside, or one whose name begins with a dot"
            )
