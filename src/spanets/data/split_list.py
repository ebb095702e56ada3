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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from spanets.runs.file_names import SPLIT
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically

SPLIT_PARTS = ("train", "val")
_HEADER = ("image", "part")
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
    write_pairs(folder / SPLIT, _HEADER, rows)


def write_pairs(path: Path, header: tuple[str, str], rows: Iterable[tuple[str, str]]) -> None:
    """Writes a list of pairs, such as image and part.

    Raises:
        UserError: it cannot be written.
    """

    def write(file: BinaryIO) -> None:
        for row in (header, *rows):
            line = ",".join(map(_cell, row)) + "\n"
            file.write(line.encode("utf-8", "surrogateescape"))

    write_atomically(path, write)


def _cell(text: str) -> str:
    """Quotes a cell if needed; Python's csv writer does not quote a carriage return."""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL & set(text) else text


def read_split(folder: Path) -> SplitList | None:
    """Reads the split list of a run; returns None if there is none.

    Raises:
        UserError: it cannot be read, or is damaged; the message names the line.
    """
    path = folder / SPLIT
    parts = read_pairs(path, _HEADER, SPLIT_PARTS.__contains__, "its part, train or val")
    return None if parts is None else SplitList(path, parts)


def read_pairs(
    path: Path, header: tuple[str, str], is_allowed: Callable[[str], bool], allowed: str
) -> dict[str, str] | None:
    """Reads a list of pairs, each image once; returns None if there is no such file.

    Args:
        path: The file.
        header: Its first line.
        is_allowed: Whether a text may be the second of a pair.
        allowed: What it must be, for messages.

    Raises:
        UserError: it cannot be read, or is damaged; the message names the line.
    """
    pairs: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            for name, second in _rows(reader, path, header, is_allowed, allowed):
                pairs[name] = second
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return pairs


def _rows(
    reader: Any,
    path: Path,
    header: tuple[str, str],
    is_allowed: Callable[[str], bool],
    allowed: str,
) -> Iterator[list[str]]:
    """Yields both texts of each row after the header."""
    seen: dict[str, str] = {}
    try:
        if next(reader, None) != list(header):
            raise ValueError(f"must begin with {','.join(header)}")
        for row in reader:
            if len(row) != 2 or not is_allowed(row[1]):
                raise ValueError(f"must be an image and {allowed}")
            if seen.setdefault(*row) != row[1]:
                raise ValueError(f"{row[0]} is in both {header[1]}s")
            yield row
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}; mend it") from None
