"""Lists the images of a table for statistics; finds out what its images are labelled with.

A table has one class an image, several labels, or numbers. The task says which; without one, it is
found where the cells leave no doubt.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spanets.data.class_names import describe_twins
from spanets.data.sources.labelled import Listed
from spanets.data.sources.table import image_names, images_folder, table_parts
from spanets.data.sources.table_columns import NAMES, TAGS, plain_name, read_bit, read_number
from spanets.data.sources.table_reading import read_header, read_table
from spanets.recipe import parse_recipe
from spanets.tasks import DEFAULT_TASK, load_task
from spanets_runtime.errors import UsageError

_OWNERS = {"separator": "multilabel", "label_columns": "multilabel", "targets": "regression"}
"""The task that each key of `TableKeys.own` belongs to."""


@dataclass(frozen=True)
class TableKeys:
    """How a table is read, as keys of a recipe.

    Attributes:
        images, columns: As `data.images` and `data.columns`; None means the default.
        task: "classification", "multilabel" or "regression"; None finds it.
        own: `separator`, `label_columns` and `targets` of `data`, if they are given.
    """

    images: str | None = None
    columns: Mapping[str, str | None] | None = None
    task: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Returns the keys that are given, by their names in the data section of a recipe."""
        own = {"images": self.images, "columns": dict(self.columns or {}), **self.own}
        return {name: value for name, value in own.items() if value}


def list_table(root: str, keys: TableKeys) -> tuple[Listed, TableKeys]:
    """Lists the images of a table; returns them with the keys, in which the task stands.

    Raises:
        UsageError: keys of two tasks, or the task cannot be found.
        UserError: the table is wrong; see `table_parts`.
    """
    keys, notes = _settle(root, keys)
    assert keys.task is not None
    recipe = parse_recipe({"task": keys.task, "data": {"root": root, **keys.to_data()}})
    reader = load_task(keys.task).survey_table(recipe.data)
    parts = table_parts(
        root, images=keys.images, columns=keys.columns, for_training=False, targets=reader
    )
    folder, listed = images_folder(root, keys.images), Listed(notes=notes)
    for part, samples in parts.items():
        listed.images += samples.images  # type: ignore[arg-type]
        listed.names += image_names(samples.images, folder)
        if reader is None:
            listed.classes += [samples.classes[label] for label in samples.labels]
        listed.parts += [part if len(parts) > 1 else ""] * len(samples)
        listed.groups += samples.groups or []
        listed.folds += samples.folds or []
        twins = describe_twins(samples.classes, root)  # the findings have them
        listed.notes += [n for n in samples.notes if n not in (*listed.notes, *twins)]
    if reader is not None:
        listed.classes = [""] * len(listed.images)
        listed.targets = np.concatenate([np.asarray(one.targets) for one in parts.values()])
        listed.target_names = next(iter(parts.values())).classes
    return listed, keys


def _settle(root: str, keys: TableKeys) -> tuple[TableKeys, list[str]]:
    """Returns the keys with a task, and a line about what was assumed."""
    owners = {_OWNERS[name] for name in keys.own} | ({keys.task} if keys.task else set())
    if len(owners) > 1:
        given = [f"--{name.replace('_', '-')} is for {_OWNERS[name]}" for name in keys.own]
        task = f" and --task is {keys.task}" if keys.task else ""
        raise UsageError(f"{', '.join(given)}{task}; leave one of them out")
    if owners:
        return TableKeys(keys.images, keys.columns, owners.pop(), keys.own), []
    task, own, reason = _guess(Path(os.path.expanduser(root)), keys.columns or {})
    notes = [f"{root}: {reason}"] if reason else []
    return TableKeys(keys.images, keys.columns, task, own), notes


def _guess(path: Path, columns: Mapping[str, str | None]) -> tuple[str, dict[str, Any], str]:
    """Returns the task of a table, keys of it, and the reason in words; "" for one class an image.

    Raises:
        UsageError: columns of 0 and 1 stand beside columns of other numbers.
    """
    header = read_header(path)
    named = columns.get("label")
    usual = [name for name in header if plain_name(name) in NAMES["label"]]
    labels = usual if named is None else [named]
    if len(labels) == 1 and labels[0] in header:
        return _guess_column(path, labels[0])
    tags = [name for name in header if plain_name(name) in TAGS]
    if not labels and len(tags) == 1:
        reason = f"read as several labels an image, because there is a column {tags[0]!r}"
        return "multilabel", {}, reason
    return (DEFAULT_TASK, {}, "") if labels else _guess_columns(path, columns)


def _guess_column(path: Path, name: str) -> tuple[str, dict[str, Any], str]:
    """Finds the task of a table with a column of labels; see `_guess`."""
    cells = {cell.strip() for cell in read_table(path, name.__eq__).columns[name]} - {""}
    other = "; --task classification reads each cell as one class"
    marks = [mark for mark in "|;" if any(mark in cell for cell in cells)]
    if any(cell.startswith("[") and cell.endswith("]") for cell in cells):
        marks.insert(0, "[]")
    if marks:
        shown = f"read as several labels an image, because cells of {name!r} hold {marks[0]!r}"
        return "multilabel", {}, shown + other
    values = np.array([read_number(cell) for cell in cells])
    if len(values) and np.isfinite(values).all() and (values % 1).any():
        reason = f"read as regression, because {name!r} holds numbers that are not whole"
        return "regression", {"targets": [name]}, reason + other
    return DEFAULT_TASK, {}, ""


def _guess_columns(
    path: Path, columns: Mapping[str, str | None]
) -> tuple[str, dict[str, Any], str]:
    """Finds the task of a table without a column of labels; see `_guess`."""
    usual = {name for role in NAMES for name in NAMES[role]}
    table = read_table(
        path, lambda name: plain_name(name) not in usual and name not in columns.values()
    )
    bits, numbers, others = [], [], []
    for name, column in table.columns.items():
        cells = {cell.strip() for cell in column} - {""}
        if cells and _finite_share(map(read_bit, cells)) == 1:
            bits.append(name)
        elif cells and _finite_share(map(read_number, cells)) > 0.5:  # some may be "n/a"
            numbers.append(name)
        else:
            others.append(name)
    if bits and numbers:
        raise UsageError(
            f"{path}: has columns of 0 and 1 ({_shown(bits)}) and of other numbers "
            f"({_shown(numbers)}); name those of labels with --label-columns, or those to estimate "
            "with --targets"
        )
    if bits:
        return "multilabel", {}, "read as several labels an image, because of columns of 0 and 1"
    if numbers:
        left = f", without {_shown(others)}" if others else ""
        reason = f"read as regression of all columns of numbers ({_shown(numbers)}){left}; "
        return "regression", {"targets": numbers}, f"{reason}--targets chooses some"
    return DEFAULT_TASK, {}, ""


def _finite_share(values: Iterable[float]) -> float:
    return float(np.isfinite(list(values)).mean())


def _shown(names: Collection[str], limit: int = 8) -> str:
    return ", ".join([*list(names)[:limit], *["…"] * (len(names) > limit)])
