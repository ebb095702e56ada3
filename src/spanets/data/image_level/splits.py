"""Lists the images of a recipe's data section by part."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spanets.data.image_level.bands import join_bands
from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.image_level.tables import source_of, table_splits
from spanets.data.run_data import RunData
from spanets.data.samples import Samples
from spanets.data.sources.elpv import elpv_splits
from spanets.data.sources.folder import folder_parts, part_folders
from spanets.data.sources.folder_paths import names_in
from spanets.data.sources.hub import hub_parts
from spanets.data.sources.runs_among_images import refuse_inside
from spanets.data.sources.shards import read_shards
from spanets.data.splits import split_parts
from spanets_runtime.errors import UsageError
from spanets_runtime.listing import listing_arrays
from spanets_runtime.progress import progress

# What `data.root` must name, by `data.source`.
_ROOTS = {
    "folder": "the folder of your images, one sub-folder a class: --data.root DIR",
    "table": "the table of your images: --data.root labels.csv",
    "webdataset": "a folder of shards or a pattern: --data.root 'shards/{train,val}-*.tar'",
    "hf": "a folder of save_to_disk or parquet files, or a name on the hub: --data.root OWNER/NAME",
}


def read_splits(data: ImageLevelData, run_data: RunData | None = None) -> dict[str, Samples]:
    """Lists the images of a recipe's data section: "train", "val" and perhaps "test".

    Args:
        data: The data section.
        run_data: What the run recorded about its data; images keep the part in its split list.

    Raises:
        UsageError: no data set is named, or a new run's folder lies among its images.
        UserError: the data are missing or cannot be used.
    """
    source = source_of(data)
    if source == "elpv":
        return elpv_splits(data.val_fraction, data.split_seed)
    if data.root is None:
        raise UsageError(f"data.root is not set; give {_ROOTS[data.source]}")
    if source == "table":
        return table_splits(data, run_data)
    if run_data is not None and run_data.is_new:
        refuse_inside(run_data.folder, scanned_folders(data.source, data.root))
    known = None if run_data is None else run_data.classes
    name_images: Callable[[Sequence[Any]], Sequence[str]] = _keys
    if data.source == "folder":
        with listing_arrays(data.channels is not None):
            parts = folder_parts(data.root, known)
        name_images = partial(names_in, data.root)
    elif data.source == "webdataset":
        parts = read_shards(data.root, data.label_column, data.cache, known)
    else:
        parts = hub_parts(data.root, data.image_column, data.label_column)
    parts = join_bands(parts, data, source)
    return split_parts(parts, data.root, data.val_fraction, data.split_seed, name_images, run_data)


def scanned_folders(source: str, root: str) -> list[Path]:
    """Returns the folders that are scanned for images."""
    folder = Path(os.path.expanduser(root))
    if source == "hf" and folder.is_dir():
        return [folder]
    if source != "folder" or not folder.is_dir():
        return []
    return list(part_folders(folder).values()) or [folder]


def _keys(images: Sequence[Any]) -> list[str]:
    return [image.key for image in progress(images, "names")]
