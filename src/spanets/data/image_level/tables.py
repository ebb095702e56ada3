"""Reads the tables of labelled images that a recipe names, and divides them into parts or folds."""

from dataclasses import replace

import numpy as np

from spanets.data.folds import Folds, find_folds, fold_parts
from spanets.data.image_level.bands import join_bands
from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.run_data import RunData
from spanets.data.samples import Samples
from spanets.data.sources.table import (
    TargetReader,
    image_names,
    images_folder,
    is_table,
    table_parts,
)
from spanets.data.splits import number_repeats, split_parts
from spanets_runtime.errors import UsageError

_KEYS = ("columns", "images", "folds", "fold")
"""Keys that only tables have."""

LEAVE_OUT = "leave the column out by --data.columns '{weight: null}'"
"""Advice about a column of weights."""


def source_of(data: ImageLevelData) -> str:
    """Returns the source of a data set; a root that is a table needs no `data.source`.

    Raises:
        UsageError: a key for tables is set, and the data set is none.
    """
    is_named = data.root is not None and data.source == "folder" and is_table(data.root)
    source = "table" if is_named else data.source
    defaults = ImageLevelData()
    changed = [key for key in _KEYS if getattr(data, key) != getattr(defaults, key)]
    if changed and source != "table":
        raise UsageError(
            f"data.{changed[0]} is for tables (.csv, .tsv, .jsonl, .parquet), and the data set is "
            f"of data.source {source}"
        )
    return source


def table_splits(
    data: ImageLevelData, run_data: RunData | None, targets: TargetReader | None = None
) -> dict[str, Samples]:
    """Lists the images of a recipe's table by part: "train", "val" and perhaps "test".

    Args:
        data: The data section.
        run_data: What the run recorded about its data.
        targets: Reads other targets than one class an image.

    Raises:
        UserError: see `table_parts`, `split_parts` and `fold_parts`.
    """
    assert data.root is not None
    if data.fold == "all":
        raise UsageError("data.fold is all, which only `spanets train` runs; choose one fold")
    parts, folder = _read(data, targets), images_folder(data.root, data.images)
    if data.fold is not None:
        names, seed = image_names(parts["train"].images, folder), data.split_seed
        found = fold_parts(parts, names, data.root, data.fold, data.folds, seed, run_data)
    else:
        found = split_parts(
            parts,
            data.root,
            data.val_fraction,
            data.split_seed,
            lambda images: image_names(images, folder),
            run_data,
        )
    found["train"] = _scale_weights(found["train"], data)
    notes = _describe(data, found)
    return {part: samples.noted(notes) for part, samples in found.items()}


def draw_folds(data: ImageLevelData, targets: TargetReader | None = None) -> Folds:
    """Returns the fold of each image of a recipe's table.

    Raises:
        UserError: the recipe names no table; or see `table_parts` and `find_folds`.
    """
    if data.root is None:
        raise UsageError("data.root is not set; give a table: --data.root labels.csv")
    source_of(data)
    samples, folder = _read(data, targets)["train"], images_folder(data.root, data.images)
    names = number_repeats(image_names(samples.images, folder))
    return find_folds(samples, names, data.folds, data.split_seed, data.root)


def _read(data: ImageLevelData, targets: TargetReader | None) -> dict[str, Samples]:
    assert data.root is not None
    given = {"path": data.image_column, "label": data.label_column}
    columns = {role: name for role, name in given.items() if name is not None}
    parts = table_parts(
        data.root,
        images=data.images,
        columns={**columns, **data.columns},
        pooled=data.fold is not None,
        max_missing=data.max_unreadable,
        targets=targets,
    )
    if targets is not None:
        values = parts["train"].targets
        assert isinstance(values, np.ndarray)
        parts["train"] = replace(parts["train"], strata=targets.stratify(values))
    return join_bands(parts, data, "table")


def _scale_weights(samples: Samples, data: ImageLevelData) -> Samples:
    """Scales the weights of the training images to a mean of 1.

    Raises:
        UsageError: all weights are 0.
    """
    if samples.weights is None:
        return samples
    mean = sum(samples.weights) / len(samples)
    if not mean:
        raise UsageError(f"{data.root}: the weights of all training images are 0; {LEAVE_OUT}")
    weights = [weight / mean for weight in samples.weights]
    note = (
        f"{data.root}: the weight column weighs the images in the training loss, scaled to a mean "
        f"of 1: from {min(weights):.3g} to {max(weights):.3g}"
    )
    return replace(samples, weights=weights).noted([note])


def _describe(data: ImageLevelData, parts: dict[str, Samples]) -> list[str]:
    """Returns notes about the source, an unused fold column, and groups in several parts."""
    notes = []
    if data.source == "folder":
        notes.append(f"{data.root}: read as a table, because of its suffix")
    if data.fold is None and parts["train"].folds is not None:
        notes.append(f"{data.root}: its fold column is not used; data.fold chooses a fold")
    homes: dict[str, set[str]] = {}
    for part, samples in parts.items():
        for group in set(samples.groups or ()):
            homes.setdefault(group, set()).add(part)
    shared = [group for group, found in homes.items() if len(found) > 1]
    if shared:
        where = " and ".join(sorted(homes[shared[0]]))
        notes.append(
            f"{data.root}: {len(shared)} groups are in several parts, as its columns say, such as "
            f"{shared[0]!r} ({where}): the numbers may be too good"
        )
    return notes
