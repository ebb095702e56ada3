"""Reads labelled images that a table lists: one row an image, with its path and its label.

    file,species,plant            labels.csv
    leaves/1.jpg,oak,p1
    leaves/2.jpg,ash,p2

Columns are found by their usual names (`NAMES`) or given. Whatever is wrong with the rows is
reported at once, with counts and examples. Images are sorted by class and path, as in a folder of
class folders, so that the order of the rows does not matter.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from spanets.data.class_lists import clean_name
from spanets.data.class_names import describe_twins
from spanets.data.packed import PackedPaths, PackedTexts
from spanets.data.samples import Samples
from spanets.data.sources.parts import PARTS, Part, part_of
from spanets.data.sources.table_columns import open_table
from spanets.data.sources.table_files import find_files
from spanets.data.sources.table_reading import READERS, Table, count_of
from spanets_runtime.errors import UserError

_SPREADSHEETS = (".xlsx", ".xls", ".ods")

ALWAYS_TRAIN = -1
"""The number in a fold column of an image that is in the training part of every fold."""

Codes = np.ndarray


def is_table(root: str) -> bool:
    """Returns whether a data set's root is a table, by its suffix.

    Raises:
        UserError: it is a spreadsheet, which must be saved as a table first.
    """
    path = Path(os.path.expanduser(root))
    suffix = path.suffix.lower()
    if suffix in _SPREADSHEETS and path.is_file():
        raise UserError(f"{root}: is a spreadsheet; save it as 'CSV UTF-8' and name that file")
    return suffix in READERS and "{" not in root and "://" not in root and not path.is_dir()


def images_folder(root: str, images: str | None) -> Path:
    """Returns the folder below which a table's images lie."""
    folder = Path(os.path.expanduser(images)) if images else Path(os.path.expanduser(root)).parent
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data.images must name that of the images")
    return folder


@dataclass
class Rows:
    """The rows of a table, checked column by column; `faults` are reported together.

    Attributes:
        names: Path of each image below the folder, or None.
    """

    table: Table
    roles: Mapping[str, str]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    _coded: dict[str, tuple[Codes, list[str]]] = field(default_factory=dict)

    def cells(self, role: str) -> list[str] | None:
        """Returns the cells of a role's column, or None if there is no such column."""
        return self.table.columns[self.roles[role]] if role in self.roles else None

    def codes(self, role: str) -> tuple[Codes, list[str]] | None:
        """Numbers the different texts of a column, without spaces around them."""
        cells = self.cells(role)
        if cells is not None and role not in self._coded:
            clean: dict[str, int] = {}
            numbers = {raw: clean.setdefault(clean_name(raw), len(clean)) for raw in set(cells)}
            codes = np.fromiter(map(numbers.__getitem__, cells), np.int32, len(cells))
            self._coded[role] = codes, list(clean)
        return self._coded.get(role)

    def fault(self, rows: Sequence[Any], noun: str, verb: tuple[str, str], rest: str) -> None:
        """Adds a fault if it concerns any rows, with examples."""
        if len(rows):
            shown = [self.show(row) for row in rows[:4]] + [""] * (len(rows) - 4)
            self.faults.append(f"{count_of(shown, noun, verb)} {rest}")

    def show(self, row: int) -> str:
        """Returns the path and the number of a row."""
        path, place = self.table.columns[self.roles["path"]][row].strip(), self.table.place(row)
        return f"{path} ({place})" if path else place


@dataclass(frozen=True)
class Targets:
    """What the rows of a table are labelled with, if it is not one class each.

    Attributes:
        classes: Names of the columns of `values`.
        codes: A number for the values of each row; -1 leaves the row out.
        values: (rows, columns).
    """

    classes: list[str]
    codes: Codes
    values: np.ndarray


class TargetReader(Protocol):
    """Reads targets that are not one class each."""

    @property
    def columns(self) -> Mapping[str, str | None]:
        """Columns by role, which win over those of `table_parts`."""

    def wants(self, name: str) -> bool:
        """Returns whether a column is read besides those of the roles."""

    def read(self, rows: Rows, parts: Codes, for_training: bool) -> Targets:
        """Reads the targets; adds faults and notes to the rows."""

    def stratify(self, values: np.ndarray) -> list[str]:
        """Returns the stratum of each image with these targets, for a split."""


def table_parts(
    root: str,
    *,
    images: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    pooled: bool = False,
    max_missing: float = 0.0,
    for_training: bool = True,
    targets: TargetReader | None = None,
) -> dict[str, Samples]:
    """Lists the images of a table by part: "train" and, if a column names them, "val" and "test".

    Args:
        root: The table.
        images: Folder of the images; None is that of the table.
        columns: Column by role, see `NAMES`; None leaves a role out.
        pooled: Whether the images of "val" are joined to "train", to be divided into folds.
        max_missing: Fraction of the rows that may lack their file; they are left out.
        for_training: Whether the training images define the classes, of which there must be two.
            Otherwise all images do.
        targets: Reads other targets than one class an image.

    Raises:
        UsageError: a column that is named is not there, or the role is unknown.
        UserError: the table cannot be read, a column is not found, or rows are wrong; the message
            names all kinds of faults, with counts and examples.
    """
    path, folder = Path(os.path.expanduser(root)), images_folder(root, images)
    if targets is None:
        table, roles = open_table(path, columns or {})
    else:
        columns = {**(columns or {}), **targets.columns}
        needs_label = targets.columns.get("label", "") is not None
        table, roles = open_table(path, columns, targets.wants, needs_label)
    rows = Rows(table, roles, list(table.faults))
    shown = ", ".join(f"{role} {name!r}" for role, name in roles.items())
    rows.notes.append(f"columns: {shown}")
    kept = _check_files(rows, folder, max_missing)
    parts = _check_parts(rows, pooled)
    if targets is None:
        classes, labels = _check_labels(rows, parts, for_training)
        found = None
    else:
        found = targets.read(rows, parts, for_training)
        classes, labels = found.classes, found.codes
    weights, folds = _check_weights(rows), _check_folds(rows)
    order = _sort(rows, [row for row in kept if labels[row] >= 0], labels, parts)
    if rows.faults:
        raise UserError(f"{path}: {'; '.join(rows.faults)}; mend or remove these rows")
    if for_training:
        _require_train(path, parts[kept])
    groups = _check_groups(rows, order)
    notes = tuple(f"{path}: {note}" for note in rows.notes) + describe_twins(classes, str(path))
    return {
        part: Samples(
            PackedPaths(folder, PackedTexts(str(rows.names[row]) for row in own)),
            labels[own].tolist() if found is None else [0] * len(own),
            classes,
            None if found is None else found.values[own],
            groups=None if groups is None else [groups[row] for row in own],
            weights=None if weights is None else weights[own].tolist(),
            folds=None if folds is None else folds[own].tolist(),
            notes=notes,
        )
        for number, part in enumerate(PARTS)
        if len(own := order[parts[order] == number])
    }


def _require_train(path: Path, parts: Codes) -> None:
    if not (parts == 0).any():
        found = " and ".join(PARTS[number] for number in np.unique(parts))
        raise UserError(f"{path}: its rows are all for {found}, none to train on")


def _check_files(rows: Rows, folder: Path, max_missing: float) -> list[int]:
    """Finds the files; returns the rows that have one."""
    cells = [cell.strip() for cell in rows.table.columns[rows.roles["path"]]]
    labels = rows.cells("label") or [""] * len(cells)
    empty = [row for row, cell in enumerate(cells) if not cell]
    blank = {row for row in empty if not labels[row].strip()}
    if len(blank) == len(cells):
        raise UserError(f"{rows.table.path}: all rows are blank")
    if blank and not rows.faults:  # rows with other faults count as blank
        rows.notes.append(f"{len(blank):,} blank rows left out")
    rows.fault([row for row in empty if row not in blank], "row", ("has", "have"), "no path")
    found = find_files(cells, folder)
    rows.names, rows.notes = found.names, [*rows.notes, *found.notes]
    outside = f"outside of {folder}; if you trust them, name a folder that holds them: data.images"
    rows.fault(found.outside, "path", ("leads", "lead"), outside)
    if len(found.missing) <= int(max_missing * len(cells)) and found.missing:
        rows.notes.append(
            f"{len(found.missing):,} of {len(cells):,} images left out, because their files are "
            f"missing, such as {rows.show(found.missing[0])}"
        )
    else:
        remedy = f"missing in {folder}; name their folder by data.images"
        rows.fault(found.missing, "file", ("is", "are"), remedy)
    return [row for row, name in enumerate(found.names) if name is not None]


def _check_parts(rows: Rows, pooled: bool) -> Codes:
    """Returns the part of each row as an index of `PARTS`."""
    coded = rows.codes("split")
    if coded is None:
        return np.zeros(rows.table.rows, np.int8)
    codes, words = coded
    found: list[Part | None] = [part_of(word) for word in words]
    counts = np.bincount(codes, minlength=len(words))
    used = np.array([name is not None for name in rows.names])
    unknown = {
        word: int(counts[code])
        for code, (word, part) in enumerate(zip(words, found, strict=True))
        if part is None and used[codes == code].any()
    }
    if unknown:
        shown = ", ".join(f"{word!r} ({count:,} rows)" for word, count in list(unknown.items())[:5])
        rows.faults.append(
            f"column {rows.roles['split']!r} has words that name no part: {shown}; known are "
            "train, val and test (the column is left out by --data.columns '{split: null}')"
        )
    numbers = np.array([PARTS.index(part) if part else 0 for part in found], np.int8)
    parts = numbers[codes]
    if pooled and (joined := int((parts == 1).sum())):
        rows.notes.append(
            f"{joined:,} images of val are joined to those of train, to be divided into folds"
        )
        parts[parts == 1] = 0
    return parts


def _check_labels(rows: Rows, parts: Codes, for_training: bool) -> tuple[list[str], Codes]:
    """Returns the classes, sorted by name, and each row's class; -1 for rows without a label."""
    coded = rows.codes("label")
    assert coded is not None
    codes, names = coded
    used = np.array([name is not None for name in rows.names])
    filled = np.array([bool(name) for name in names])[codes]
    test = used & (parts == PARTS.index("test"))
    needs_no_test = for_training or (used & ~test).any()
    if needs_no_test and test.any() and not (filled & test).any():
        rows.notes.append(f"the {int(test.sum()):,} images of test have no labels, left out")
        used &= ~test
    rows.fault(np.flatnonzero(used & ~filled).tolist(), "label", ("is", "are"), "empty")
    used &= filled
    defining = used & (parts == 0) if for_training else used
    classes = sorted({names[code] for code in np.unique(codes[defining])})
    others = {names[code] for code in np.unique(codes[used])} - set(classes)
    if others and classes:
        shown = ", ".join(map(repr, sorted(others)[:5]))
        rows.faults.append(f"{len(others)} classes have no training images ({shown})")
    if for_training and len(classes) == 1 and not rows.faults:
        raise UserError(f"{rows.table.path}: only one class, {classes[0]!r}; add others")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(name, -1) for name in names], np.int32)[codes]
    spaced = Counter(cell for cell in rows.cells("label") or () if cell != cell.strip())
    if spaced:
        rows.notes.append(f"{spaced.total():,} labels have spaces around them, which are left out")
    return classes, np.where(used, labels, -1)


def _check_weights(rows: Rows) -> np.ndarray | None:
    """Returns the weight of each row, or None without such a column."""
    cells = rows.cells("weight")
    if cells is None:
        return None
    known = {cell: _weight(cell) for cell in set(cells)}
    weights = np.fromiter(map(known.__getitem__, cells), np.float64, len(cells))
    wrong = [row for row in np.flatnonzero(np.isnan(weights)) if rows.names[row] is not None]
    rows.fault(wrong, "weight", ("is", "are"), "no number of 0 or more, such as 0.5")
    return weights


def _weight(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if 0 <= value < math.inf else math.nan


def _check_groups(rows: Rows, kept: Codes) -> list[str] | None:
    """Returns the group of each row, or None without such a column or if all its cells are empty.

    An image without a group is a group of its own, with the name of the image: all of them as one
    group would be drawn into one part.
    """
    coded = rows.codes("group")
    if coded is None:
        return None
    codes, names = coded
    is_empty = np.array([not name for name in names])[codes]
    count, column = int(is_empty[kept].sum()), f"column {rows.roles['group']!r}"
    if count == len(kept):
        rows.notes.append(f"{column} is empty, so there are no groups")
        return None
    if count:
        rows.notes.append(
            f"{count:,} of {len(kept):,} images have no group in {column}; each is a group of its "
            "own"
        )
    places = enumerate(zip(codes, is_empty, strict=True))
    return [str(rows.names[row]) if empty else names[code] for row, (code, empty) in places]


def _check_folds(rows: Rows) -> Codes | None:
    """Returns the fold of each row, or None without such a column."""
    coded = rows.codes("fold")
    if coded is None:
        return None
    codes, words = coded
    numbers = np.array([_fold(word) for word in words], np.int64)[codes]
    wrong = [row for row in np.flatnonzero(numbers < ALWAYS_TRAIN) if rows.names[row] is not None]
    rows.fault(wrong, "fold", ("is", "are"), "no whole number (-1 is: always for training)")
    return numbers


def _fold(word: str) -> int:
    whole = word.removesuffix(".0")  # pandas writes 2.0 if a cell of the column is empty
    is_number = whole == str(ALWAYS_TRAIN) or (whole.isascii() and whole.isdigit())
    return int(whole) if is_number and len(whole) < 9 else ALWAYS_TRAIN - 1


def _sort(rows: Rows, kept: list[int], labels: Codes, parts: Codes) -> Codes:
    """Returns the rows by class and path, each image once."""
    keys = [(name or "").replace("/", "\0") for name in rows.names]  # as paths are sorted
    kept.sort(key=keys.__getitem__)
    del keys
    columns = {"label": labels, "split": parts}
    for role in ("fold", "group", "weight"):
        if (coded := rows.codes(role)) is not None:
            columns[role] = coded[0]
    once, repeated, differing = kept[:1], 0, dict[str, list[int]]()
    for before, row in pairwise(kept):
        if rows.names[row] != rows.names[before]:
            once.append(row)
        elif others := [role for role, codes in columns.items() if codes[row] != codes[before]]:
            differing.setdefault(others[0], []).append(row)
        else:
            repeated += 1
    for role, wrong in differing.items():
        rows.fault(wrong, "path", ("stands", "stand"), f"also in a row with another {role}")
    if repeated:
        rows.notes.append(
            f"{repeated:,} rows repeat a path with the same {_list(columns)}, left out"
        )
    order = np.array(once, np.int64)
    return order[np.argsort(labels[order], kind="stable")]


def _list(columns: Mapping[str, Codes]) -> str:
    return ", ".join(columns)


def image_names(images: Sequence[object], folder: Path) -> list[str]:
    """Returns the paths of a table's images below their folder, with forward slashes."""
    if isinstance(images, PackedPaths):
        return list(images.names)
    return [os.path.relpath(str(image), folder).replace(os.sep, "/") for image in images]
