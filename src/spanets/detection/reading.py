"""Reads the annotated images of a recipe's parts, in COCO's format or any other."""

import os
from pathlib import Path

from spanets.data.run_data import RunData
from spanets.detection.recipe import DetectionData
from spanets.formats.coco.objects import CocoData
from spanets.formats.coco.reader import read_coco
from spanets.formats.reading import Split, read_objects
from spanets_runtime.errors import UsageError, UserError


def read_part(
    data: DetectionData,
    part: str,
    keypoints: bool = False,
    run_data: RunData | None = None,
    draw: bool = True,
) -> CocoData:
    """Reads the annotations of a recipe's "train" or "val" part; see `read_parts`."""
    (found,), _ = read_parts(data, part, keypoints=keypoints, run_data=run_data, draw=draw)
    return found


def read_parts(
    data: DetectionData,
    *parts: str,
    keypoints: bool = False,
    run_data: RunData | None = None,
    draw: bool = True,
) -> tuple[list[CocoData], Split | None]:
    """Reads the annotations of a recipe's parts, "train" or "val", perhaps with keypoints.

    Without the annotation file that the recipe names, any other format is looked for.

    Args:
        data: The recipe's data section.
        parts: Names of the parts.
        keypoints: Whether to read keypoints.
        run_data: What the run recorded about its data; images keep the part in its split list.
        draw: See `read_objects`.

    Returns:
        The parts, and for the run's split list the names of the images by part; None for the
        recipe's annotation files, which are never split.

    Raises:
        UsageError: no folder is given.
        UserError: no format is found, or see `read_objects` and `read_coco`.
    """
    if data.root is None:
        raise UsageError(
            "data.root is not set; give the folder with images and annotations: --data.root DIR"
        )
    root = Path(os.path.expanduser(data.root))
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    files = {part: root / getattr(data, f"{part}_annotations") for part in parts}
    if not any(os.path.lexists(path) for path in files.values()):
        return read_objects(root, parts, next(iter(files.values())), keypoints, run_data, draw)
    read = [
        read_coco(path, root / getattr(data, f"{part}_images"), keypoints)
        for part, path in files.items()
    ]
    return read, None
