"""Tables of predictions, a row an image: their columns, and files in CSV, JSONL and Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from spanets_runtime.errors import UsageError, UserError, require
from spanets_runtime.predict import ImagePrediction, Prediction

Row = dict[str, Any]
"""Values by column name."""

_ROWS = 2**13  # in a row group of a .parquet file


@dataclass(frozen=True)
class Columns:
    """The columns of a table of predictions.

    Attributes:
        labels: Number of classes in a row of a classifier, in falling order of probability; None
            for a detector, whose rows have a list of objects.
    """

    labels: int | None

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        if self.labels is None:
            return ["image", "predictions", "error"]
        ranked = [f"{what}_{i + 1}" for i in range(self.labels) for what in _RANKED]
        return ["image", *ranked, "error"]

    def row(self, prediction: ImagePrediction) -> Row:
        """Returns the row of a prediction; all values but "image" and "error" may be None."""
        row: Row = dict.fromkeys(self.names)
        row["image"] = prediction.image
        if prediction.error is not None:
            row["error"] = prediction.error.removeprefix(f"{prediction.image}: ")
        elif self.labels is None:
            row["predictions"] = prediction.to_dict()["predictions"]
        else:
            assert isinstance(prediction, Prediction)
            for i, (label, probability) in enumerate(prediction.labels, start=1):
                row[f"label_{i}"], row[f"probability_{i}"] = label, probability
        return row


_RANKED = ("label", "probability")


def refuse_task(word: str, task: str | None) -> NoReturn:
    """Raises a UsageError for a model whose predictions are no rows, such as a segmenter."""
    raise UsageError(
        f"a table of predictions is for classifiers and detectors; {word} is for {task}"
    )


def check_table(path: Path, images: Iterable[Any]) -> None:
    """Checks, before any work, that a table of these images can be stored in the path's format.

    Raises:
        UsageError: unknown suffix.
        UserError: pyarrow is missing, or Parquet cannot store an image's name.
    """
    if path.suffix not in _WRITERS:
        *first, last = _WRITERS
        raise UsageError(f"--table {path}: the suffix must be {', '.join(first)} or {last}")
    if path.suffix != ".parquet":
        return
    require("pyarrow.parquet", "tables")
    for image in map(str, images):
        try:
            image.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{image!r}: its name is not valid UTF-8, which .parquet cannot store; rename it, "
                "or write .csv or .jsonl"
            ) from None


def write_rows(path: Path, columns: Columns, rows: Iterable[Row], file: BinaryIO) -> None:
    """Writes rows to an open file, in the format of the suffix of `path`; see `check_table`."""
    _WRITERS[path.suffix](columns, rows, file)


def dump_row(row: Row) -> bytes:
    """Returns a row as a line of JSON; names that are not valid text stay as escapes."""
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def _write_csv(columns: Columns, rows: Iterable[Row], file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns.names)
    for row in rows:
        objects = row.get("predictions")
        cells = row if objects is None else {**row, "predictions": json.dumps(objects)}
        writer.writerow([cells[name] for name in columns.names])
    text.detach()  # flushes, and leaves the file open


def _write_jsonl(columns: Columns, rows: Iterable[Row], file: BinaryIO) -> None:
    for row in rows:
        file.write(dump_row(row))


def _write_parquet(columns: Columns, rows: Iterable[Row], file: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    mask = pa.struct([("size", pa.list_(pa.int64())), ("counts", pa.string())])
    number = pa.float64()
    point = pa.struct([("name", pa.string()), ("x", number), ("y", number), ("score", number)])
    found = pa.struct(
        [
            ("label", pa.string()),
            ("score", number),
            ("box", pa.list_(number)),
            ("segmentation", mask),
            ("keypoints", pa.list_(point)),
        ]
    )
    kinds = {"probability": number, "predictions": pa.list_(found)}
    schema = pa.schema(
        [(name, kinds.get(name.partition("_")[0], pa.string())) for name in columns.names]
    )
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema) as writer:
        for group in _grouped(rows):
            # pyarrow drops the keys that a schema lacks, without a word.
            assert all(_has_place(row, pa.struct(list(schema))) for row in group)
            writer.write_table(pa.Table.from_pylist(group, schema))


def _has_place(value: Any, kind: Any) -> bool:
    """Whether a pyarrow type has a field for each key of nested dictionaries."""
    if isinstance(value, dict):
        fields = {field.name: field.type for field in kind}
        return all(key in fields and _has_place(value[key], fields[key]) for key in value)
    if isinstance(value, list):
        return all(_has_place(one, kind.value_type) for one in value)
    return True


def _grouped(rows: Iterable[Row]) -> Iterator[list[Row]]:
    return iter(partial(_take, iter(rows)), [])


def _take(rows: Iterator[Row]) -> list[Row]:
    return list(islice(rows, _ROWS))


_WRITERS: dict[str, Callable[[Columns, Iterable[Row], BinaryIO], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
