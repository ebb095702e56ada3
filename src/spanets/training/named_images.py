"""Lists the images of a folder or table to measure, and warns if the model was trained on them."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from spanets.data.image_level.bands import keep_bands
from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.image_level.tables import source_of, table_splits
from spanets.data.run_data import read_run_data
from spanets.data.samples import Samples
from spanets.data.sources.folder import part_folders, scan_folder
from spanets.data.sources.folder_paths import existing_folder, names_in, subfolders
from spanets.data.sources.listed_folder import is_listed, listed_parts
from spanets.data.sources.table import TargetReader, images_folder, is_table, table_parts
from spanets.data.split_list import SplitList
from spanets.recipe import Recipe
from spanets.runs.file_names import RECIPE
from spanets.sources import Source
from spanets.training.own_data import recipe_beside
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.listing import listing_arrays

MakeReader = Callable[[str, Any], TargetReader | None]
"""Function from the path of a table and a recipe's data section to what reads its targets."""


Merge = Callable[[Samples, str], Samples]
"""Function from the images of class folders, and their folder's name, to those to measure."""


def one_class(root: str, data: Any) -> None:
    """Reads one class an image, the default of tables."""


def as_they_are(samples: Samples, origin: str) -> Samples:
    """Returns the images of class folders unchanged."""
    return samples


def named_images(
    root: str,
    source: Source,
    recipe: Recipe | None,
    make_reader: MakeReader = one_class,
    merge: Merge = as_they_are,
) -> tuple[str, Samples]:
    """Lists the images of a folder or table; if it has parts, those of "test" or else "val".

    Args:
        root: The folder or table.
        source: The model to measure.
        recipe: The model's recipe, or None for an exported file.
        make_reader: Makes what reads the targets of a table.
        merge: Makes other targets of class folders.

    Returns:
        The measured folder or table, and its images with a note if the model was trained on some.

    Raises:
        UserError: see `scan_folder` and `table_parts`.
    """
    if is_table(root):
        return _named_table(root, source, recipe, make_reader)
    if is_listed(root):
        return _named_list(root, source, recipe, make_reader, merge)
    folder, notes = existing_folder(root), []
    parts = {p: f for p, f in part_folders(folder).items() if subfolders(f)}
    if parts:
        folder = next(parts[part] for part in ("test", "val", "train") if part in parts)
        others = [str(other) for other in parts.values() if other != folder]
        advice = f"; name {' or '.join(others)} to measure there" if others else ""
        notes.append(f"{root}: has parts, of which {folder.name} is measured{advice}")
    pixels = source.preprocess.pixels
    with listing_arrays(pixels is not None):
        samples = scan_folder(folder, least=1, known=source.info.classes)
    samples = merge(keep_bands(samples, pixels and pixels.bands, root), root)
    if recipe is not None:
        notes += _describe_trained(folder, samples, source, recipe, make_reader)
    shown = root if folder == existing_folder(root) else str(folder)
    return shown, replace(samples, notes=(*notes, *samples.notes))


def _named_list(
    root: str, source: Source, recipe: Recipe | None, make_reader: MakeReader, merge: Merge
) -> tuple[str, Samples]:
    """Lists the images of a folder with lists of its images and classes."""
    parts = listed_parts(root)
    part = "test" if "test" in parts else "train"
    samples, notes = merge(parts[part], root), []
    if len(parts) > 1:
        notes.append(f"{root}: the {len(samples)} images of test are measured, not those of train")
    if recipe is not None:
        notes += _describe_trained(existing_folder(root), samples, source, recipe, make_reader)
    return f"{root}, {part}" if len(parts) > 1 else root, samples.noted(notes)


def _named_table(
    root: str, source: Source, recipe: Recipe | None, make_reader: MakeReader
) -> tuple[str, Samples]:
    """Lists the images of a table; it is read with the columns and images of the run's table.

    The recipe of a checkpoint outside of its run folder says nothing about the table.
    """
    own = None if recipe is None else recipe_beside(source.path, recipe)
    data: Any = None if own is None else own.data
    columns, images = ({}, None) if data is None else (data.columns, data.images)
    targets = make_reader(root, data)
    read = partial(table_parts, root, images=images, for_training=False, targets=targets)
    try:
        parts = read(columns=columns)
    except UsageError:  # other names of columns than in the run's table
        parts = read()
    part = next(part for part in ("test", "val", "train") if part in parts)
    samples, notes = parts[part], []
    if len(parts) > 1:
        others = ", ".join(f"{len(parts[p])} of {p}" for p in parts if p != part)
        notes.append(f"{root}: the {len(samples)} images of {part} are measured, not the {others}")
    if recipe is not None:
        folder = images_folder(root, images)
        notes += _describe_trained(folder, samples, source, recipe, make_reader)
    shown = f"{root}, {part}" if len(parts) > 1 else root
    return shown, samples.noted(notes)


def _describe_trained(
    folder: Path, samples: Samples, source: Source, recipe: Recipe, make_reader: MakeReader
) -> list[str]:
    """Returns a note if the model is known to have been trained on some of the images."""
    assert source.path is not None
    run = source.path.parent
    if not (run / RECIPE).is_file():
        return []  # outside its run folder, a checkpoint may name somebody else's data
    data: Any = recipe.data
    own = _own_folder(data)
    is_own = own is not None and own.is_dir() and _is_below(folder, own)
    split = read_run_data(run, source.info, source.content).split
    if split is not None and split.parts:
        return _compare_names(folder, samples.images, split, own if is_own else None)
    if source_of(data) == "table":
        return _compare_with_table(samples, data, make_reader)
    train = part_folders(own).get("train") if is_own and own is not None else None
    trained = [i for i in samples.images if train is not None and _is_below(Path(str(i)), train)]
    return _describe(len(trained), len(samples), f"they lie in {train}") if trained else []


def _own_folder(data: ImageLevelData) -> Path | None:
    """Returns the folder of a run's images, or None if they are not files."""
    if data.root is None or (source := source_of(data)) not in ("folder", "table"):
        return None
    with suppress(UserError):  # the table's images may be gone
        return (
            images_folder(data.root, data.images)
            if source == "table"
            else Path(os.path.expanduser(data.root))
        )
    return None


def _compare_with_table(
    samples: Samples, data: ImageLevelData, make_reader: MakeReader
) -> list[str]:
    """Compares images with those that the run's own table names for training."""
    try:
        assert data.root is not None
        images = table_splits(data, None, make_reader(data.root, data))["train"].images
    except UserError:  # the table is gone, or has changed
        return []
    trained = {os.path.realpath(str(image)) for image in images}
    count = sum(os.path.realpath(str(image)) in trained for image in samples.images)
    return _describe(count, len(samples), f"{data.root} names them") if count else []


def _compare_names(folder: Path, images: Any, split: SplitList, own: Path | None) -> list[str]:
    """Compares image names with the split list, relative to the run's data set or the folder."""
    names = names_in(folder, images)
    if own is not None:
        inside = os.path.relpath(os.path.realpath(folder), os.path.realpath(own)).replace(
            os.sep, "/"
        )
        names = names if inside == "." else [f"{inside}/{name}" for name in names]
    trained = [name for name in names if split.parts.get(name) == "train"]
    if not trained:
        return []
    if own is None:
        return [
            f"{folder}: {len(trained)} of {len(names)} images have names of images that the model "
            f"was trained on ({split.path}), such as {trained[0]}; if they are the same, the "
            "numbers are too good"
        ]
    return _describe(len(trained), len(names), f"{split.path} lists them, such as {trained[0]}")


def _describe(trained: int, count: int, how: str) -> list[str]:
    return [
        f"{trained} of the {count} images are those that the model was trained on ({how}): the "
        "numbers are too good; leave out --data to measure only the others"
    ]


def _is_below(place: Path, folder: Path) -> bool:
    return place.resolve().is_relative_to(folder.resolve())
