"""Run folders among images: they hold pictures, and are no class."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from spanets.runs.folder import RECIPE, RECORD
from spanets_runtime.errors import UsageError
from spanets_runtime.listing import is_system


def holds_only_runs(folder: Path, depth: int = 3) -> bool:
    """Whether a folder is a run's, or holds folders of runs and nothing else.

    A folder of images ends the search at its first file.

    Args:
        folder: Where to look.
        depth: Levels of folders in which a run's may lie.
    """
    if (folder / RECIPE).is_file() and (folder / RECORD).is_file():
        return True
    found = False
    with suppress(OSError), os.scandir(folder) as entries:  # the scan for images tells of it
        for entry in entries:
            if is_system(entry.name):
                continue
            if not depth or not entry.is_dir() or not holds_only_runs(Path(entry.path), depth - 1):
                return False
            found = True
    return found


def refuse_inside(out: Path, scanned: Iterable[Path]) -> None:
    """Refuses a folder for a run below one that is scanned for images, unless it is hidden there.

    Raises:
        UsageError: it lies there; the message says what to do.
    """
    place = Path(os.path.expanduser(out)).resolve()
    for folder in scanned:
        root = folder.resolve()
        if place.is_relative_to(root) and not any(map(is_system, place.relative_to(root).parts)):
            raise UsageError(
                f"--out {out}: lies in {folder}, whose folders are classes of images; choose a "
                "folder outside, or one whose name begins with a dot"
            )
