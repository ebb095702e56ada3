"""Data sets of images with several labels each: by part, and as loaders.

A batch is `(images (B, 3, S, S), targets (B, labels))`, with targets of 0 and 1.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from spanets.data.class_names import match_classes
from spanets.data.image_level.dataset import make_image_loaders
from spanets.data.image_level.splits import scanned_folders
from spanets.data.image_level.tables import source_of, table_splits
from spanets.data.loaders import Loaders
from spanets.data.run_data import RunData
from spanets.data.sampler import EpochSampler
from spanets.data.samples import Samples
from spanets.data.sources.folder import folder_parts
from spanets.data.sources.folder_paths import names_in
from spanets.data.sources.runs_among_images import refuse_inside
from spanets.data.splits import split_parts
from spanets.multilabel.recipe import MultilabelData, MultilabelRecipe
from spanets.multilabel.strata import stratify
from spanets.multilabel.tables import make_reader
from spanets_runtime.errors import UsageError
from spanets_runtime.progress import progress


def read_parts(data: MultilabelData, run_data: RunData | None = None) -> dict[str, Samples]:
    """Lists the images of a recipe's data section by part: "train", "val" and perhaps "test".

    Raises:
        UsageError: no data set is named, or a new run's folder lies among its images.
        UserError: the data are missing or cannot be used.
    """
    if data.root is None:
        raise UsageError(
            "data.root is not set; give a table or a folder of class folders: --data.root "
            "labels.csv"
        )
    if source_of(data) == "table":
        return table_splits(data, run_data, make_reader(data.root, data))
    if run_data is not None and run_data.is_new:
        refuse_inside(run_data.folder, scanned_folders("folder", data.root))
    known = None if run_data is None else run_data.classes
    parts = {
        part: merge_folders(found, data.root)
        for part, found in folder_parts(data.root, known).items()
    }
    train = parts["train"]
    assert isinstance(train.targets, np.ndarray)
    parts["train"] = replace(train, strata=stratify(train.targets))
    name_images = partial(names_in, data.root)
    seed = data.split_seed
    return split_parts(parts, data.root, data.val_fraction, seed, name_images, run_data)


def merge_folders(samples: Samples, origin: str) -> Samples:
    """Returns each image once, with the labels of all class folders that it stands in.

    An image stands in several folders if links lead to the same file, or if files have the same
    content.
    """
    identities, kinds = _identify(samples.images)
    first: dict[Any, int] = {}
    for index, identity in enumerate(identities):
        first.setdefault(identity, index)
    places = {index: row for row, index in enumerate(first.values())}
    values = np.zeros((len(first), len(samples.classes)), np.float32)
    for index, identity in enumerate(identities):
        values[places[first[identity]], samples.labels[index]] = 1
    merged = replace(samples.subset(first.values()), labels=[0] * len(first), targets=values)
    several = int((values.sum(1) > 1).sum())
    note = (
        f"{origin}: {len(first):,} images, of which {several:,} stand in several class folders "
        f"({kinds['links']:,} repeated as links, {kinds['copies']:,} as copies)"
    )
    return merged.noted([note])


def _identify(images: Sequence[Any]) -> tuple[list[Any], dict[str, int]]:
    """Returns what is equal for equal images, and how many repeat another by link and by copy."""
    paths = [os.path.realpath(image) for image in images]
    sizes: dict[int, list[str]] = {}
    for path in set(paths):
        sizes.setdefault(os.path.getsize(path) if os.path.isfile(path) else -1, []).append(path)
    same = [path for size, group in sizes.items() if size > 0 and len(group) > 1 for path in group]
    contents = {path: _digest(path) for path in progress(same, "compare")}
    identities = [contents.get(path, path) for path in paths]
    links = len(paths) - len(set(paths))
    return identities, {"links": links, "copies": len(set(paths)) - len(set(identities))}


def _digest(path: str) -> bytes | str:
    try:
        with Path(path).open("rb") as file:
            digest = blake2b(digest_size=16)
            while block := file.read(2**20):
                digest.update(block)
        return digest.digest()
    except OSError:  # an unreadable image is reported when it is loaded
        return path


def fit_labels(samples: Samples, classes: list[str]) -> Samples:
    """Returns labelled images with the labels of a model, in its order.

    Args:
        samples: Images with rows of 0 and 1.
        classes: The labels of the model.

    Raises:
        UserError: images have a label that the model lacks.
    """
    values = np.asarray(samples.targets)
    present = np.flatnonzero(values.any(0)).tolist()
    places = match_classes([samples.classes[i] for i in present], classes)
    fitted = np.zeros((len(samples), len(classes)), np.float32)
    for column, place in zip(present, places, strict=True):
        fitted[:, place] = np.maximum(fitted[:, place], values[:, column])
    return replace(samples, targets=fitted, classes=classes, labels=[0] * len(samples))


def make_loaders(
    recipe: MultilabelRecipe, batch_size: int, processes: int, run_data: RunData
) -> tuple[Loaders, list[int]]:
    """Makes the loaders of a recipe, and counts the training images of each label."""
    parts = read_parts(recipe.data, run_data)
    train = parts["train"]
    counts = np.asarray(train.targets).sum(0).astype(int)
    if absent := [n for n, count in zip(train.classes, counts, strict=True) if not count]:
        shown = ", ".join(absent[:5])
        note = f"{recipe.data.root}: no training image of {len(absent)} labels: {shown}"
        parts["train"] = train = train.noted([note])
    loaders = make_image_loaders(
        recipe.data,
        parts,
        EpochSampler(len(train), shuffle=True, seed=recipe.seed),
        lambda part: part.targets,
        batch_size,
        processes,
        seed=recipe.seed,
    )
    return loaders, counts.tolist()
