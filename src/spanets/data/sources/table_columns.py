"""Finds the columns of a table by their usual names, or as they are given; reads their cells."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from spanets.data.sources.table_reading import Table, read_table
from spanets_runtime.errors import UsageError, nearest

NAMES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename"),
        *("img", "imgpath", "imageid", "idcode"),
    ),
    "label": ("label", "labels", "labelname", "class", "classname", "cls", "category", "target"),
    "split": ("split", "part", "subset", "partition"),
    "fold": ("fold", "foldid", "kfold", "cvfold"),
    "group": ("group", "groupid", "patient", "patientid", "subject", "subjectid", "plant"),
    "weight": ("weight", "sampleweight", "imageweight"),
}
"""Usual names of columns, in lower case, without spaces, `_` and `-`."""

TAGS = ("tags", "tag")
"""Names of a column of several labels, besides those of `NAMES`."""

_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")


def open_table(
    path: Path,
    columns: Mapping[str, str | None],
    wants: Callable[[str], bool] = lambda _: False,
    needs_label: bool = True,
) -> tuple[Table, dict[str, str]]:
    """Reads the table, and returns it with the column of each role.

    Args:
        path: The table.
        columns: Column by role; None leaves a role out.
        wants: Whether a column is read besides those of the roles.
        needs_label: Whether there must be a column of labels.

    Raises:
        UsageError: see `table_parts`.
        UserError: see `read_table`.
    """
    for role in columns:
        if role not in NAMES:
            hint = nearest(role, NAMES) or f"; allowed: {', '.join(NAMES)}"
            raise UsageError(f"data.columns: unknown {role!r}{hint}")
    named = {plain_name(name) for name in columns.values() if name}
    usual = {name for role in NAMES.keys() - columns.keys() for name in NAMES[role]}
    table = read_table(path, lambda name: plain_name(name) in named | usual or wants(name))
    roles: dict[str, str] = {}
    for role in NAMES:
        if (found := _find_column(table, role, columns)) is not None:
            roles[role] = found
    required = ("path", "label") if needs_label else ("path",)
    if missing := [role for role in required if role not in roles]:
        example = ", ".join(f"{role}: NAME" for role in missing)
        raise UsageError(
            f"{path}: no column is known as {' or '.join(missing)}; it has "
            f"{', '.join(table.header[:20])}; name the column: --data.columns '{{{example}}}'"
            + "".join(f"; {fault}" for fault in table.faults)
        )
    if len(set(roles.values())) < len(roles):
        raise UsageError(f"{path}: data.columns names one column for two purposes ({roles})")
    return table, roles


def _find_column(table: Table, role: str, columns: Mapping[str, str | None]) -> str | None:
    """Returns the column of a role, as it is given or else by its usual names."""
    if role in columns:
        wanted = columns[role]
        if wanted is None or wanted in table.header:
            return wanted
        found = [name for name in table.header if plain_name(name) == plain_name(wanted)]
        if len(found) == 1:
            return found[0]
        hint = nearest(wanted, table.header) or f"; it has {', '.join(table.header[:20])}"
        raise UsageError(f"{table.path}: no column {wanted!r}, as data.columns says{hint}")
    found = [name for name in table.header if plain_name(name) in NAMES[role]]
    if len(found) > 1:
        raise UsageError(
            f"{table.path}: columns {' and '.join(map(repr, found))} could be the {role}; name "
            f"one: --data.columns '{{{role}: {found[0]}}}'"
        )
    return found[0] if found else None


def read_bit(cell: str) -> float:
    """Returns 1 or 0 for a cell that says whether an image has a label, NaN for others."""
    text = cell.strip().casefold()
    return 1.0 if text in _YES else 0.0 if text in _NO else math.nan


def read_number(cell: str) -> float:
    """Returns the number in a cell, NaN for others."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return math.nan if "_" in cell else value  # Python reads 1_000


def plain_name(name: str) -> str:
    """Returns a column's name in lower case, without spaces, `_` and `-`."""
    return name.casefold().translate({ord(character): None for character in " _-"})
