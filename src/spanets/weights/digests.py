"""Records size and SHA-256 of a fetched file beside it, and compares the file with them later."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from spanets.weights.errors import WeightsError
from spanets.weights.files import open_regular
from spanets_runtime.files import write_atomically
from spanets_runtime.reading import read_text_file

_MOST_RECORD = 2**16


@dataclass(frozen=True)
class Fetched:
    """What was recorded when a file was fetched.

    Attributes:
        url: Address that the file is published at.
        fetched_from: Address or path that it was copied from; "" if it was in the cache already.
        size: Size in bytes.
        sha256: SHA-256 in hexadecimal digits.
        date: When it was recorded, in UTC.
    """

    url: str
    fetched_from: str
    size: int
    sha256: str
    date: str


def record_path(path: Path) -> Path:
    """Returns the path of a file's record."""
    return path.with_name(f"{path.name}.json")


def measure(path: Path) -> tuple[int, str]:
    """Returns the size of a file in bytes, and its SHA-256 in hexadecimal digits.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return path.stat().st_size, hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None


def write_record(path: Path, url: str, fetched_from: str, size: int, sha256: str) -> None:
    """Writes the record of a file.

    Raises:
        UserError: it cannot be written.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps(asdict(Fetched(url, fetched_from, size, sha256, date)), indent=1)
    write_atomically(record_path(path), lambda file: file.write(f"{text}\n".encode()))


def read_record(path: Path) -> Fetched | None:
    """Returns the record of a file, or None if there is none.

    Raises:
        UserError: damaged or unreadable.
    """
    place = record_path(path)
    if not place.exists():
        return None
    try:
        found = Fetched(**json.loads(read_text_file(place, _MOST_RECORD)))
        texts = (found.url, found.fetched_from, found.date)
        right = all(isinstance(text, str) for text in texts) and type(found.size) is int
        if right and re.fullmatch(r"[0-9a-f]{64}", found.sha256):
            return found
    except (ValueError, TypeError, RecursionError):
        pass
    raise WeightsError(
        f"{place}: damaged, so {path.name} cannot be compared with it; remove it, then the weights "
        "are verified anew"
    )


def check_unchanged(path: Path, record: Fetched) -> None:
    """Compares a file with its record.

    Raises:
        WeightsError: the file is another one, or cannot be read.
    """
    size, sha256 = measure(path)
    if (size, sha256) == (record.size, record.sha256):
        return
    how = f"{size:,} bytes, not {record.size:,}" if size != record.size else "another SHA-256"
    raise WeightsError(
        f"{path}: changed since {record.date[:10]} ({how}); remove it, then it is fetched again "
        f"from {record.fetched_from or record.url}"
    )
