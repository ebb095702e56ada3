"""Splits of old runs without a split list: drawn again if the data set has not changed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spanets.data.run_data import RunData
from spanets.runs.file_names import SPLIT
from spanets_runtime.errors import UserError
from spanets_runtime.listing import is_system

_ROUNDING = 1.0  # seconds; precision of a run's recorded start time
_TOGETHER = 2.0  # seconds; a file and its folder may record one change this far apart


def check_unchanged(run_data: RunData, images: Sequence[Any], trained: int, origin: str) -> str:
    """Checks for signs that images were added or removed since the run began.

    Args:
        run_data: What the run recorded about its data.
        images: All images of the data set: files or stored images.
        trained: Number of training images in a split drawn now.
        origin: Name of the data set, for messages.

    Returns:
        A message that the split was drawn again.

    Raises:
        UserError: the data set has changed.
    """
    reason = _count_sign(run_data, trained) or _time_sign(
        run_data, images, Path(os.path.expanduser(origin))
    )
    if reason:
        raise UserError(
            f"{run_data.folder} has no {SPLIT}, and {origin} has changed since that run began "
            f"({reason}): a split drawn now would mix images that were trained on with others; "
            "put the images back as they were, name other images with --data, or start a new run"
        )
    return (
        f"{run_data.folder}: has no {SPLIT}, so the split of {origin} is drawn again; it is that "
        "of the run if no image was added, removed or renamed since"
    )


def _count_sign(run_data: RunData, trained: int) -> str:
    expected = run_data.count_trained()
    if expected is None or trained in expected:
        return ""
    return f"it trained on {expected.start} to {expected.stop - 1} images, now they are {trained}"


def _time_sign(run_data: RunData, images: Sequence[Any], root: Path) -> str:
    """Names a folder that changed since the run began; "" for a copy, where every file is newer."""
    files = [image for image in images if isinstance(image, Path)]
    if run_data.started is None or len(files) < len(images):
        return ""
    limit = run_data.started + _ROUNDING
    if all(os.lstat(path).st_ctime > limit for path in files):
        return ""
    changed = next((f for f in _folders(files, root) if _has_changed(f, limit)), None)
    return "" if changed is None else f"files were added to or removed from {changed}"


def _folders(files: Iterable[Path], root: Path) -> list[Path]:
    """Returns all folders below the root that hold the files, directly or deeper."""
    found: set[Path] = set()
    for folder in {path.parent for path in files}:
        below = [f for f in (folder, *folder.parents) if f != root and f.is_relative_to(root)]
        found.update(below)
    return sorted(found)


def _has_changed(folder: Path, limit: float) -> bool:
    """Whether entries were added or removed after `limit`, hidden system files not counted."""
    changed = folder.stat().st_mtime
    if changed <= limit:
        return False
    with os.scandir(folder) as entries:
        left = [entry.stat(follow_symlinks=False) for entry in entries if is_system(entry.name)]
    return all(abs(entry.st_ctime - changed) >= _TOGETHER for entry in left)
