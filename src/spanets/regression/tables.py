"""Reads the numbers of images from columns of a table.

file,age,height
1.jpg,34,1.78
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.sources.parts import PARTS
from spanets.data.sources.table import Codes, Rows, Targets
from spanets.data.sources.table_columns import NAMES, plain_name, read_number
from spanets.data.sources.table_reading import read_header
from spanets.regression.recipe import RegressionData
from spanets_runtime.errors import UsageError, nearest

_BINS = 10
"""Largest number of strata of a split, which hold equally many images each."""

_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")


def make_reader(
    root: str, data: ImageLevelData | None, targets: Sequence[str] = ()
) -> "TargetColumns":
    """Returns what reads the numbers of a table.

    Args:
        root: The table.
        data: The data section of the recipe, or None.
        targets: Names of a model's numbers; they win over those of the recipe.

    Raises:
        UsageError: a column is missing.
        UserError: the header cannot be read.
    """
    data = data if isinstance(data, RegressionData) else RegressionData()
    header = read_header(Path(os.path.expanduser(root)))
    wanted = list(targets) or data.targets
    if wanted is None:
        named = data.label_column or data.columns.get("label")
        usual = [name for name in header if plain_name(name) in NAMES["label"]]
        if named is None and not usual:
            raise UsageError(
                f"{root}: no column is known as label; it has {', '.join(header[:20])}; name the "
                "columns of numbers: --data.targets '[NAME]'"
            )
        return TargetColumns((), {} if named is None else {"label": named})
    for name in wanted:
        if name not in header:
            hint = nearest(name, header) or f"; it has {', '.join(header[:20])}"
            raise UsageError(f"{root}: no column {name!r}, as data.targets says{hint}")
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"data.targets names a column twice ({', '.join(wanted)})")
    # A column called weight may be what is to be estimated.
    plain = {plain_name(name) for name in wanted}
    taken = {role: None for role in NAMES if plain & set(NAMES[role]) and role not in data.columns}
    return TargetColumns(tuple(wanted), {"label": None, **taken})


@dataclass(frozen=True)
class TargetColumns:
    """Reads columns of numbers.

    Attributes:
        names: The columns; empty means the column of labels.
        columns: See `TargetReader`.
        may_miss: Whether cells without a finite number are NaN, with a note instead of a fault.
    """

    names: Sequence[str]
    columns: Mapping[str, str | None]
    may_miss: bool = False

    def wants(self, name: str) -> bool:
        """Returns whether a column holds numbers."""
        return name in self.names

    def read(self, rows: Rows, parts: Codes, for_training: bool) -> Targets:
        """Reads the numbers; see `TargetReader`."""
        names = list(self.names) or [rows.roles["label"]]
        used = np.array([name is not None for name in rows.names])
        columns = [rows.table.columns[name] for name in names]
        blank = [
            np.fromiter((not cell.strip() for cell in cells), bool, len(cells)) for cells in columns
        ]
        test = used & (parts == PARTS.index("test"))
        if for_training and test.any() and all(mask[test].all() for mask in blank):
            rows.notes.append(f"the {int(test.sum()):,} images of test have no numbers, left out")
            used &= ~test
        values, faults = np.zeros((len(used), len(names))), len(rows.faults)
        for number, (name, cells) in enumerate(zip(names, columns, strict=True)):
            known = {cell: read_number(cell) for cell in set(cells)}
            values[:, number] = np.fromiter(map(known.__getitem__, cells), np.float64, len(cells))
            _check(rows, name, cells, values[:, number], used, blank[number])
        shown = ", ".join(
            f"{name} from {finite.min():.6g} to {finite.max():.6g}"
            for name, column in zip(names, values[used].T, strict=True)
            if len(finite := column[np.isfinite(column)])
        )
        rows.notes.append(f"numbers to estimate: {shown}")
        if self.may_miss:
            values[~np.isfinite(values)] = np.nan
            rows.notes += [f"{fault}; training refuses that" for fault in rows.faults[faults:]]
            del rows.faults[faults:]
        distinct = np.hstack([np.nan_to_num(values), np.isnan(values)])  # NaN equals no NaN
        codes = np.unique(distinct, axis=0, return_inverse=True)[1].reshape(-1)
        return Targets(names, np.where(used, codes, -1), values)

    def stratify(self, values: np.ndarray) -> list[str]:
        """Returns the stratum of each image: a tenth of the images, by the first number."""
        ranks = np.argsort(np.argsort(values[:, 0], kind="stable"), kind="stable")
        bins = max(1, min(_BINS, len(values) // 8))
        return [str(number) for number in (ranks * bins // max(1, len(values))).tolist()]


def _check(
    rows: Rows, name: str, cells: Sequence[str], values: Codes, used: Codes, blank: Codes
) -> None:
    """Adds faults about cells that are empty, no number, or infinite."""
    no_number = used & ~blank & np.isnan(values)
    found = f"in column {name!r}"
    rows.fault(np.flatnonzero(used & blank).tolist(), "cell", ("is", "are"), f"empty {found}")
    wrong = np.flatnonzero(no_number).tolist()
    example = next((cells[row] for row in wrong), "")
    comma = "; write decimal points" if _DECIMAL_COMMA.fullmatch(example) else ""
    rest = f"no number {found}, such as {example[:40]!r}{comma}"
    rows.fault(wrong, "cell", ("is", "are"), rest)
    infinite = np.flatnonzero(used & np.isinf(values)).tolist()
    rows.fault(infinite, "cell", ("is", "are"), f"infinite {found}")
