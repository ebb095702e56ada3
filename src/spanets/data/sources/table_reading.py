"""Reads the columns of a table as text: CSV, TSV, JSON Lines and parquet.

Every cell keeps the text that the file holds: 007 is not 7. So Python's own readers are used for
text files, in batches: `csv` reads a million rows in a second or two, and a row with a wrong number
of cells can be counted and named. pandas and polars guess types, and pyarrow's reader of CSV is
faster but stops at the first wrong row. pyarrow reads parquet.
"""

import csv
import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from spanets.data.class_lists import clean_name, encoding_of
from spanets_runtime.errors import UserError, first_line, require

MAX_ROWS = 2**26
_BATCH = 2**12  # rows
_MEMO = 2**16  # different cells
_HEADER = 2**15  # characters of the first line in which the delimiter is searched
_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*(?:"|$)')
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # Excel's own first line
_NOT_UTF8 = "is not text in UTF-8; save it as 'CSV UTF-8', as spreadsheets call it"

# A batch: the cells of some columns by name, each as long as the batch.
_Batch = Mapping[str, Sequence[str]]


@dataclass
class Table:
    """The columns of a table that were asked for.

    Attributes:
        path: The file.
        header: Names of all its columns.
        columns: Cells by column; an empty or missing cell is "".
        rows: Number of rows.
        first_row: Number of the first row as an editor counts them.
        faults: What is wrong with some rows, with counts and examples.
    """

    path: Path
    header: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    rows: int = 0
    first_row: int = 1
    faults: list[str] = field(default_factory=list)
    _memo: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, batch: _Batch, count: int) -> None:
        """Adds `count` rows; a column that a batch lacks is empty there."""
        if self.rows + count > MAX_ROWS:
            raise UserError(f"{self.path}: more than {MAX_ROWS:,} rows")
        for name in batch:
            if name not in self.columns:
                self.columns[name] = [""] * self.rows
        for name, cells in self.columns.items():
            memo = self._memo.setdefault(name, {})
            if len(memo) < _MEMO:  # equal cells share one string
                cells += [memo.setdefault(cell, cell) for cell in batch.get(name, [""] * count)]
            else:
                cells += batch.get(name, [""] * count)
        self.rows += count

    def place(self, row: int) -> str:
        """Returns the name of a row, for messages."""
        return f"row {self.first_row + row}"


def read_header(path: Path) -> list[str]:
    """Returns the names of a table's columns; of JSON Lines, those of the first rows.

    Raises:
        UserError: see `read_table`.
    """
    return read_table(path, lambda _: False, batches=1).header


def read_table(path: Path, is_wanted: Callable[[str], bool], batches: int | None = None) -> Table:
    """Reads the columns whose names are wanted, of all rows or of a number of batches.

    Raises:
        UserError: the file is missing or damaged, is not of the format that its suffix names, or
            two wanted columns have the same name.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the table, or set data.source folder")
    if not path.is_file():  # a pipe might never end
        raise UserError(f"{path}: no such file")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"{path}: is no table; known are {', '.join(READERS)}")
    table = Table(path)
    try:
        with _paused_collector():
            for batch, count in islice(read(table, is_wanted), batches):
                table.add(batch, count)
    except UnicodeError:
        raise UserError(f"{path}: {_NOT_UTF8}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not table.rows:
        raise UserError(f"{path}: has no rows")
    return table


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Pauses the search for unreachable cycles, which a list for each row would start all the time.

    Rows hold no cycles, and with torch imported the search takes most of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _open_text(path: Path) -> TextIO:
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4))
    return path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")


def _read_csv(table: Table, is_wanted: Callable[[str], bool]) -> Iterator[tuple[_Batch, int]]:
    """Yields the batches of a text file whose cells are separated by `,`, `;`, a tab or `|`."""
    with _open_text(table.path) as file:
        first = file.readline(_HEADER)
        said = _SEPARATOR_LINE.fullmatch(first)
        delimiter = said[1] if said else _find_delimiter(table.path, first)
        if not said:
            file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield from _read_rows(reader, table, is_wanted)
        except csv.Error as error:
            raise UserError(
                f"{table.path}: cannot be read near line {reader.line_num} ({error}); look for a "
                "quotation mark that is not closed"
            ) from None


def _find_delimiter(path: Path, header: str) -> str:
    """Returns the most frequent delimiter outside of quotation marks; of a .tsv, a tab if any."""
    bare = _QUOTED.sub("", header)
    if path.suffix.lower() == ".tsv" and "\t" in bare:
        return "\t"
    return max(_DELIMITERS, key=bare.count)


def _read_rows(
    reader: Iterator[list[str]], table: Table, is_wanted: Callable[[str], bool]
) -> Iterator[tuple[_Batch, int]]:
    header = [clean_name(name) for name in next(reader, [])]
    while header and not header[-1]:  # spreadsheets write empty columns
        header.pop()
    table.header, table.first_row = [name for name in header if name], 2
    wanted = [(place, name) for place, name in enumerate(header) if name and is_wanted(name)]
    for _, name in wanted:
        if header.count(name) > 1:
            raise UserError(f"{table.path}: two columns are called {name!r}; rename one")
    wrong: list[str] = []
    while rows := list(islice(reader, _BATCH)):
        if set(map(len, rows)) != {len(header)}:
            places = map(table.place, range(table.rows, table.rows + len(rows)))
            rows = [_fit(*pair, len(header), wrong) for pair in zip(rows, places, strict=True)]
        columns = list(zip(*rows, strict=True))
        yield {name: columns[place] for place, name in wanted}, len(rows)
    if wrong:
        cells = f"the header has {len(header)}"
        table.faults.append(f"{count_of(wrong, 'row')} another number of cells ({cells})")


def _fit(row: list[str], place: str, width: int, wrong: list[str]) -> list[str]:
    """Returns a row of `width` cells; spreadsheets write blank rows and extra empty cells."""
    if len(row) > width and not any(row[width:]):
        row = row[:width]
    if row and len(row) != width:
        wrong.append(f"{place} with {len(row)}")
    return row if len(row) == width else [""] * width


def count_of(examples: Sequence[str], noun: str, verb: tuple[str, str] = ("has", "have")) -> str:
    """Returns for example "3 rows, such as A and B, have"."""
    count = len(examples)
    if count == 1:
        return f"1 {noun}, {examples[0]}, {verb[0]}"
    shown = ", ".join(examples[:3]) + (", …" if count > 3 else "")
    return f"{count:,} {noun}s ({shown}) {verb[1]}"


def _read_lines(table: Table, is_wanted: Callable[[str], bool]) -> Iterator[tuple[_Batch, int]]:
    """Yields the batches of a file with one JSON object a line; numbers keep their text."""
    decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode
    wrong: list[str] = []
    header: dict[str, bool] = {}
    with _open_text(table.path) as file:
        while lines := list(islice(file, _BATCH)):
            places = map(table.place, range(table.rows, table.rows + len(lines)))
            pairs = zip(lines, places, strict=True)
            rows = [_decode(decode, line, place, wrong) for line, place in pairs]
            for name in dict.fromkeys(name for row in rows for name in row):
                if name not in header:
                    header[name] = is_wanted(name)
            wanted, table.header = [name for name in header if header[name]], list(header)
            yield {name: [_text(row.get(name)) for row in rows] for name in wanted}, len(rows)
    if wrong:
        table.faults.append(f"{count_of(wrong, 'line', ('is', 'are'))} no JSON object")


def _decode(
    decode: Callable[[str], Any], line: str, place: str, wrong: list[str]
) -> dict[str, Any]:
    try:
        row = decode(line) if line.strip() else {}
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        wrong.append(place)
        return {}
    return row


def _text(value: Any) -> str:
    """Returns a JSON value as the text of a cell; lists and objects as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _read_parquet(table: Table, is_wanted: Callable[[str], bool]) -> Iterator[tuple[_Batch, int]]:
    """Yields the batches of a parquet file."""
    parquet = require("pyarrow.parquet", "tables")
    types = require("pyarrow.types", "tables")
    try:
        file = parquet.ParquetFile(table.path)
        table.header = list(file.schema_arrow.names)
        wanted = [column for column in file.schema_arrow if is_wanted(column.name)]
        for column in wanted:
            if types.is_nested(column.type):
                raise UserError(
                    f"{table.path}: column {column.name!r} holds {column.type}, not texts; a data "
                    "set that contains its images is read by --data.source hf"
                )
        names = [column.name for column in wanted]
        for batch in file.iter_batches(_BATCH, columns=names):
            yield {name: _texts(batch.column(name)) for name in names}, batch.num_rows
    except (UserError, OSError):
        raise
    # pyarrow raises many kinds of errors for damaged files.
    except Exception as error:
        raise UserError(f"{table.path}: cannot be read as parquet ({first_line(error)})") from error


def _texts(cells: Any) -> list[str]:
    arrow = require("pyarrow", "tables")
    if arrow.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return cells.cast(arrow.string()).fill_null("").to_pylist()


READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".parquet": _read_parquet,
}
"""The readers by suffix in lower case."""
