"""Reads the labels of images from a table: lists in a column, or columns of 0 and 1.

file,tags              file,red,blue
1.jpg,red|blue         1.jpg,1,1
2.jpg,                 2.jpg,0,0
"""

import ast
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from spanets.data.class_lists import clean_name
from spanets.data.class_names import normal
from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.sources.parts import PARTS
from spanets.data.sources.table import Codes, Rows, TargetReader, Targets
from spanets.data.sources.table_columns import NAMES, TAGS, plain_name, read_bit
from spanets.data.sources.table_reading import read_header
from spanets.multilabel.recipe import MultilabelData
from spanets.multilabel.strata import number_rows, stratify
from spanets_runtime.errors import UsageError, UserError, nearest

_SEPARATORS = "|;,"
_MOST_CHARACTERS = 2**16  # of a list in a cell


def make_reader(
    root: str, data: ImageLevelData | None, classes: Sequence[str] = ()
) -> TargetReader:
    """Returns what reads the labels of a table.

    Args:
        root: The table.
        data: The data section of the recipe; None finds the labels.
        classes: Labels of a model. They tell separators from names, and without a column of labels
            each must be a column.

    Raises:
        UsageError: a column is missing.
        UserError: the header cannot be read.
    """
    data = data if isinstance(data, MultilabelData) else MultilabelData()
    header = read_header(Path(os.path.expanduser(root)))
    if data.label_columns is not None:
        chosen = _choose(header, data.label_columns, root)
        _match_columns(chosen, classes, root)
        return LabelColumns(chosen, _free_roles(chosen, data))
    named = data.label_column or data.columns.get("label")
    if named is not None:
        return LabelLists(data.separator, {"label": named}, classes)
    usual = [name for name in header if plain_name(name) in NAMES["label"]]
    tags = [name for name in header if plain_name(name) in TAGS]
    if usual or len(tags) == 1:
        return LabelLists(data.separator, {} if usual else {"label": tags[0]}, classes)
    if classes:
        chosen = _match_columns(header, classes, root)
        return LabelColumns(chosen, _free_roles(chosen, data))
    if data.separator is not None:
        return LabelLists(data.separator, {})  # names the columns that there are
    return LabelColumns(None, {"label": None}, data.columns)


def _choose(header: Sequence[str], wanted: Sequence[str], root: str) -> list[str]:
    """Returns the columns of names and patterns, in the order of the table."""
    found: set[str] = set()
    for word in wanted:
        matching = [word] if word in header else [n for n in header if fnmatchcase(n, word)]
        if not matching:
            hint = nearest(word, header) or f"; it has {', '.join(header[:20])}"
            raise UsageError(f"{root}: no column {word!r}, as data.label_columns says{hint}")
        found.update(matching)
    return [name for name in header if name in found]


def _match_columns(columns: Sequence[str], classes: Sequence[str], root: str) -> list[str]:
    """Returns the columns of a model's labels, in the order of the labels.

    Raises:
        UsageError: a label has no column. As negatives, its images would count as wrong answers.
    """
    found = {normal(name): name for name in columns} | {name: name for name in columns}
    if missing := [name for name in classes if normal(name) not in found]:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        has_some = len(missing) < len(classes)
        advice = "add columns of 0 and 1" if has_some else "call the column of lists 'labels'"
        raise UsageError(
            f"{root}: has no column for {len(missing)} of the model's {len(classes)} labels "
            f"({shown}); it has {', '.join(columns[:20])}; {advice}"
        )
    return [found.get(name, found[normal(name)]) for name in classes]


def _free_roles(chosen: Sequence[str], data: ImageLevelData) -> dict[str, str | None]:
    """Returns the roles that columns of labels would have by their names, each without a column."""
    plain = {plain_name(name) for name in chosen}
    taken = [role for role in NAMES if plain & set(NAMES[role]) and role not in data.columns]
    return {"label": None, **{role: None for role in taken if role != "path"}}


@dataclass(frozen=True)
class LabelLists:
    """Reads lists of labels in the cells of one column.

    Attributes:
        separator: What separates labels, or None to find it.
        columns: See `TargetReader`.
        classes: Labels of a model, by which the separator is found.
    """

    separator: str | None
    columns: Mapping[str, str | None]
    classes: Sequence[str] = ()

    def wants(self, name: str) -> bool:
        """Returns False: the column has a role."""
        return False

    def read(self, rows: Rows, parts: Codes, for_training: bool) -> Targets:
        """Reads the labels; see `TargetReader`."""
        coded = rows.codes("label")
        assert coded is not None
        codes, texts = coded
        used = np.array([name is not None for name in rows.names])
        used &= ~_unlabelled_test(rows, used, np.array([not t for t in texts])[codes], parts)
        lists = self._split(rows, codes, texts)
        defining = used & (parts == 0) if for_training else used
        names = sorted({name for code in np.unique(codes[defining]) for name in lists[code]})
        if not names and not rows.faults:
            raise UserError(f"{rows.table.path}: no image has a label")
        others = {name for code in np.unique(codes[used]) for name in lists[code]} - set(names)
        if others and names:
            shown = ", ".join(map(repr, sorted(others)[:5]))
            rows.faults.append(f"{len(others)} labels have no training images ({shown})")
        place = {name: number for number, name in enumerate(names)}
        values = np.zeros((len(texts), len(names)), np.float32)
        for code, found in enumerate(lists):
            values[code, [place[name] for name in found if name in place]] = 1
        numbers, values = number_rows(values)[codes], values[codes]
        _note_counts(rows, values[used])
        return Targets(names, np.where(used, numbers, -1), values)

    def stratify(self, values: np.ndarray) -> list[str]:
        """Returns the stratum of each image; see `stratify`."""
        return stratify(values)

    def _split(self, rows: Rows, codes: Codes, texts: list[str]) -> list[list[str]]:
        """Returns the labels of each different text."""
        is_list = [text.startswith("[") and text.endswith("]") for text in texts]
        lists = [
            _read_list(text) if is_json else []
            for text, is_json in zip(texts, is_list, strict=True)
        ]
        wrong = np.array([found is None for found in lists])[codes]
        rows.fault(np.flatnonzero(wrong).tolist(), "label", ("is", "are"), "no list of texts")
        plain = [text for text, is_json in zip(texts, is_list, strict=True) if not is_json and text]
        counts = np.bincount(codes, minlength=len(texts))
        separator = self.separator
        if self.classes:
            separator = find_known_separator(plain, self.classes, separator)
        elif separator is None and plain:
            separator = find_separator(plain, str(rows.table.path))
        rows.notes.append(_describe_cells(counts, texts, is_list, separator))
        found = []
        for text, is_json, items in zip(texts, is_list, lists, strict=True):
            found.append(_clean(items or () if is_json else _split_cell(text, separator)))
        return found


def _split_cell(text: str, separator: str | None) -> list[str]:
    return text.split(separator) if separator else [text]


def _clean(items: Iterable[str]) -> list[str]:
    """Returns different names without spaces around them."""
    return list(dict.fromkeys(filter(None, map(clean_name, items))))


def _read_list(text: str) -> list[str] | None:
    """Returns a list in JSON, or as Python writes it, or None if it is neither."""
    if len(text) > _MOST_CHARACTERS:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)  # reads values only: pandas writes lists so
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    is_plain = isinstance(found, list) and all(type(x) in (str, int) for x in found)
    return [str(item) for item in found] if is_plain else None


def find_separator(texts: Sequence[str], origin: str) -> str | None:
    """Returns what separates the labels in different texts, or None if each is one label.

    A space separates if every word stands in at least two texts, and there are fewer words than
    texts: "clear primary", "clear water". Otherwise names like "polar bear" would be torn apart.

    Raises:
        UsageError: there are several candidates.
    """
    found = [mark for mark in _SEPARATORS if any(mark in text for text in texts)]
    if len(found) > 1:
        counts = [f"{mark!r} in {sum(mark in text for text in texts)}" for mark in found]
        raise UsageError(
            f"{origin}: the labels hold {' and '.join(counts)} different cells; name the one that "
            f"separates labels: --data.separator '{found[0]}'"
        )
    if found:
        return found[0]
    words = Counter(word for text in set(texts) for word in set(text.split()))
    is_list = min(words.values(), default=0) > 1 and len(words) < len(set(texts))
    return " " if is_list and any(" " in text for text in texts) else None


def find_known_separator(
    texts: Sequence[str], classes: Sequence[str], given: str | None = None
) -> str | None:
    """Returns what separates the labels of a model in different texts, or None if each is one.

    It is the separator that leaves the fewest characters outside of the model's labels: none,
    unless a label is unknown, and then the message names this label and not the whole cell.

    Args:
        texts: The cells.
        classes: The labels of the model.
        given: The separator of the recipe, which wins if others fit as well.
    """
    known = set(map(normal, classes))

    def count_unknown(separator: str | None) -> int:
        names = (name for text in texts for name in _clean(_split_cell(text, separator)))
        return sum(len(name) for name in names if normal(name) not in known)

    return min((given, None, *_SEPARATORS, " "), key=count_unknown)


def _describe_cells(
    counts: np.ndarray, texts: Sequence[str], is_list: Sequence[bool], separator: str | None
) -> str:
    """Returns a note on how the cells were read."""
    several = [bool(separator) and separator in text for text in texts]  # type: ignore[operator]
    in_json, split = (int(counts[np.array(mask, bool)].sum()) for mask in (is_list, several))
    parts = [f"{in_json:,} cells hold lists in brackets"] if in_json else []
    if separator:
        parts.append(f"{split:,} cells hold several labels, separated by {separator!r}")
    elif not in_json:
        parts.append("no separator found, so a cell is one label; data.separator names one")
    spaced = sum(int(n) for n, text in zip(counts, texts, strict=True) if " " in text)
    if not separator and not in_json and spaced:
        parts.append(f"{spaced:,} labels hold spaces")
    return "; ".join(parts)


@dataclass(frozen=True)
class LabelColumns:
    """Reads columns of 0 and 1, one a label.

    Attributes:
        names: The columns; None takes all that hold only 0 and 1 and have no role.
        columns: See `TargetReader`.
        given: Columns by role as the recipe gives them.
    """

    names: Sequence[str] | None
    columns: Mapping[str, str | None]
    given: Mapping[str, str | None] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        """Returns whether the column may be a label."""
        return self.names is None or name in self.names

    def read(self, rows: Rows, parts: Codes, for_training: bool) -> Targets:
        """Reads the labels; see `TargetReader`."""
        names = self._find(rows) if self.names is None else list(self.names)
        used = np.array([name is not None for name in rows.names])
        empty = np.ones(len(used), bool)
        columns = [rows.table.columns[name] for name in names]
        for cells in columns:
            empty &= np.fromiter((not cell.strip() for cell in cells), bool, len(cells))
        used &= ~_unlabelled_test(rows, used, empty, parts)
        values = np.zeros((len(used), len(names)), np.float32)
        wrong = []
        for number, (name, cells) in enumerate(zip(names, columns, strict=True)):
            known = {cell: read_bit(cell) for cell in set(cells)}
            values[:, number] = np.fromiter(map(known.__getitem__, cells), np.float32, len(cells))
            if (odd := np.flatnonzero(np.isnan(values[:, number]) & used)).size:
                wrong.append(f"{name} ({odd.size:,}, such as {rows.show(int(odd[0]))})")
        if wrong:
            rows.faults.append(
                f"{len(wrong)} of {len(names)} columns of labels have cells other than 0 and 1: "
                f"{', '.join(wrong[:3])}"
            )
            values = np.nan_to_num(values)
        _note_counts(rows, values[used])
        return Targets(names, np.where(used, number_rows(values), -1), values)

    def stratify(self, values: np.ndarray) -> list[str]:
        """Returns the stratum of each image; see `stratify`."""
        return stratify(values)

    def _find(self, rows: Rows) -> list[str]:
        """Returns the columns that hold only 0 and 1, without those that have a role."""
        path, held = rows.table.path, set(rows.roles.values())
        bits = [
            name
            for name in rows.table.header
            if {read_bit(cell) for cell in set(rows.table.columns.get(name, ()))} <= {0.0, 1.0}
        ]
        for role in ("group", "weight"):
            if rows.roles.get(role) in bits and role not in self.given:
                raise UsageError(
                    f"{path}: column {rows.roles[role]!r} holds only 0 and 1: is it a label, or "
                    f"the {role}? Add --data.columns '{{{role}: null}}' or '{{{role}: "
                    f"{rows.roles[role]}}}'"
                )
        names = [name for name in bits if name not in held]
        if not names:
            raise UsageError(
                f"{path}: has neither a column of labels nor columns of 0 and 1; it has "
                f"{', '.join(rows.table.header[:20])}; name the column of labels: --data.columns "
                "'{label: NAME}'"
            )
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        rows.notes.append(f"{len(names)} columns of 0 and 1 are labels: {shown}")
        return names


def _unlabelled_test(rows: Rows, used: Codes, empty: Codes, parts: Codes) -> Codes:
    """Returns the rows of a test part of which no row has a label: they are not published."""
    test = used & (parts == PARTS.index("test"))
    if not test.any() or not empty[test].all() or empty[used & ~test].all():
        return np.zeros(len(used), bool)
    rows.notes.append(f"the {int(test.sum()):,} images of test have no labels, left out")
    return test


def _note_counts(rows: Rows, values: np.ndarray) -> None:
    """Adds a note with the numbers of labels an image."""
    each = values.sum(1)
    without = int((each == 0).sum())
    several = int((each > 1).sum())
    rows.notes.append(
        f"{len(values):,} images, {values.shape[1]} labels: {several:,} images with several, "
        f"{without:,} with none (negatives for all labels)"
    )
