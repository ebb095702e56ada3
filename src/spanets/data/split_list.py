"""The split list of a run, split.csv: the part of every image.

    image,part
    cat/0001.jpg,train
    cat/0002.jpg,val

A drawn split depends on all images of the data set. The list is written when a run begins, and read
when the run is resumed or evaluated, so that each image keeps its part when others are added or
removed. An image is named by its path below the data set's folder, with forward slashes, so that
the folder may move. The file is UTF-8; file names with other bytes keep these bytes.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from spanets.runs.file_names import SPLIT
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically

SPLIT_PARTS = ("train", "val")
_HEADER = ["image", "part"]
_SPECIAL = frozenset(',"\r\n')


@dataclass(frozen=True)
class SplitList:
    """A split list that was read.

    Attributes:
        path: The file.
        parts: "train" or "val" by image name.
    """

    path: Path
    parts: Mapping[str, str]


def write_split(folder: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Writes the split list of a run, from the image names by part.

    Raises:
        UserError: it cannot be written.
    """
    rows = ((name, part) for part, of_part in names.items() for name in of_part)

    def write(file: BinaryIO) -> None:
        for row in (_HEADER, *rows):
            line = ",".join(map(_cell, row)) + "\n"
            file.write(line.encode("utf-8", "surrogateescape"))

    write_atomically(folder / SPLIT, write)


def _cell(text: str) -> str:
    """Quotes a cell if needed; Python's csv writer does not quote a carriage return."""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL & set(text) else text


def read_split(folder: Path) -> SplitList | None:
    """Reads the split list of a run; returns None if there is none.

    Raises:
        UserError: it cannot be read, or is damaged; the message names the line.
    """
    path, parts = folder / SPLIT, {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            for name, part in _rows(csv.reader(file, strict=True), path):
                parts[name] = part
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return SplitList(path, parts)


def _rows(reader: Any, path: Path) -> Iterator[list[str]]:
    """Yields name and part of each row after the header."""
    seen: dict[str, str] = {}
    try:
        if next(reader, None) != _HEADER:
            raise ValueError(f"must begin with {','.join(_HEADER)}")
        for row in reader:
            if len(row) != 2 or row[1] not in SPLIT_PARTS:
                raise ValueError("must be an image and its part, train or val")
            if seen.setdefault(*row) != row[1]:
                raise ValueError(f"{row[0]} is in both parts")
            yield row
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}; mend it") from None
