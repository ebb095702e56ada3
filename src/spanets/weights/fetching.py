"""Fetches weights once per machine into the cache of torch hub, and verifies them at each use.

A file is written aside, checked, and renamed; one process fetches while others wait. Its size and
SHA-256 are recorded beside it and compared whenever it is used. A cached file needs no network.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import torch
from filelock import FileLock, Timeout

from spanets.weights.digests import check_unchanged, measure, read_record, write_record
from spanets.weights.errors import WeightsError
from spanets.weights.transport import MissingError, copy_file, forget_part, shown
from spanets_runtime.errors import UserError

T = TypeVar("T")

Check = Callable[[Path], T]
"""Reads a file and checks it; raises a WeightsError that begins with the path."""

_QUIET_SECONDS = 5.0
_OFFLINE = "HF_HUB_OFFLINE"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A file to fetch.

    Attributes:
        url: Address that it is published at. The file's name in the cache is the address's last
            part.
        locations: Addresses or paths to copy it from, in the order to try them.
        size: Size in bytes, if known.
        sha256: SHA-256 in hexadecimal digits, or their beginning, if known.
    """

    url: str
    locations: Sequence[str | Path]
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """Name of the file in the cache.

        Raises:
            UserError: the address names no file.
        """
        try:
            name = unquote(urlsplit(self.url).path).rpartition("/")[2]
        except ValueError:  # such as an unclosed bracket
            raise UserError(f"{shown(self.url)}: is no address") from None
        if not name.strip(". ") or "\\" in name or "\0" in name or len(name) > 200:
            raise UserError(f"{shown(self.url)}: names no file")
        return name


def default_cache() -> Path:
    """Returns the folder of fetched weights: torch hub's, which timm uses too.

    `TORCH_HOME`, or else `XDG_CACHE_HOME`, moves it.
    """
    return Path(torch.hub.get_dir(), "checkpoints")


def fetch(wanted: Wanted, folder: Path, check: Check[T]) -> T:
    """Returns what `check` reads from a file, which is fetched first if it is not in the cache.

    Args:
        wanted: The file.
        folder: The cache.
        check: Reads and checks the file at a path. It is called before a fetched file gets its
            name, and for a cached one after its SHA-256 was compared.

    Raises:
        UserError: it cannot be fetched or written, or does not pass the checks.
    """
    path = folder / wanted.name
    if path.is_file() and read_record(path) is not None:
        return _use_recorded(wanted, path, check)
    with _locked(folder, path):
        if not path.exists():
            return _fetch_new(wanted, path, check)
        if read_record(path) is not None:  # another process has just fetched it
            return _use_recorded(wanted, path, check)
        return _adopt(wanted, path, check)


def verify(wanted: Wanted, folder: Path, check: Check[T]) -> T:
    """Returns what `check` reads from a cached file; never fetches.

    Raises:
        UserError: it is not in the cache, has changed, or does not pass the checks.
    """
    path = folder / wanted.name
    if not path.is_file():
        raise UserError(f"{path}: not fetched yet")
    if read_record(path) is None:
        return _adopt(wanted, path, check)
    return _use_recorded(wanted, path, check)


# ---- cached files


def _use_recorded(wanted: Wanted, path: Path, check: Check[T]) -> T:
    record = read_record(path)
    assert record is not None
    if record.url != wanted.url:
        raise WeightsError(
            f"{path}: was fetched from {shown(record.url)}, not from {shown(wanted.url)}, which "
            "has the same file name; remove it, or give another cache_dir"
        )
    check_unchanged(path, record)
    _check_digest(wanted, record.size, record.sha256, str(path))
    return _check_cached(wanted, path, check)


def _adopt(wanted: Wanted, path: Path, check: Check[T]) -> T:
    """Verifies and records a file that timm or the user has put into the cache."""
    size, sha256 = measure(path)
    _check_digest(wanted, size, sha256, str(path))
    content = _check_cached(wanted, path, check)
    with suppress(UserError):  # the folder may be read-only
        write_record(path, wanted.url, "", size, sha256)
    return content


def _check_cached(wanted: Wanted, path: Path, check: Check[T]) -> T:
    try:
        return check(path)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; remove the file, then it is fetched from {shown(wanted.url)}"
        ) from error


def _check_digest(wanted: Wanted, size: int, sha256: str, place: str) -> None:
    if wanted.size is not None and size != wanted.size:
        raise WeightsError(f"{place}: has {size:,} bytes, must have {wanted.size:,}: another file")
    if wanted.sha256 is not None and not sha256.startswith(wanted.sha256):
        raise WeightsError(
            f"{place}: its SHA-256 is {sha256[:16]}..., must be {wanted.sha256[:16]}...: another "
            "file"
        )


# ---- fetching


def _fetch_new(wanted: Wanted, path: Path, check: Check[T]) -> T:
    part = path.with_name(f".{path.name}.part")
    try:
        location = _copy_first(wanted, path, part)
        size, sha256 = measure(part)
        content = _check_fetched(wanted, part, path, location, check, (size, sha256))
        part.replace(path)
    except OSError as error:
        forget_part(part)  # it would keep a full disk full
        raise _unwritable(path.parent, error) from error
    forget_part(part)
    with suppress(UserError):  # the next use verifies and records the file
        write_record(path, wanted.url, shown(location), size, sha256)
    return content


def _copy_first(wanted: Wanted, path: Path, part: Path) -> str | Path:
    """Copies the file from the first location that has it; returns the location."""
    missing: MissingError | None = None
    for location in wanted.locations:
        if isinstance(location, str) and _is_offline():
            raise UserError(
                f"{shown(location)}: not fetched, because {_OFFLINE} is set; unset it, or put the "
                f"file at {path}"
            )
        try:
            copy_file(location, part, wanted.size)
        except MissingError as error:
            missing = missing or error
        except UserError as error:
            raise UserError(f"{error}; or put the file at {path}") from error
        else:
            return location
    also = "".join(f", nor {shown(location)}" for location in wanted.locations[1:])
    raise UserError(f"{missing}{also}; check the address, or put the file at {path}")


def _check_fetched(
    wanted: Wanted,
    part: Path,
    path: Path,
    location: str | Path,
    check: Check[T],
    found: tuple[int, str],
) -> T:
    try:
        _check_digest(wanted, *found, place=str(part))
        return check(part)
    except WeightsError as error:
        forget_part(part)
        reason = str(error).removeprefix(f"{part}: ")
        raise WeightsError(
            f"{shown(location)}: {reason}; nothing was kept: check the address, or put the right "
            f"file at {path}"
        ) from error


def _is_offline() -> bool:
    return os.environ.get(_OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE")


@contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    """Holds the lock of a file in the cache; makes the folder.

    A file that is there can be used without the lock, such as one in a read-only folder.
    """
    lock = FileLock(folder / f".{path.name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, path)
    except OSError as error:
        if not path.is_file():
            raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(timeout=_QUIET_SECONDS)
    except Timeout:
        _logger.warning("waiting for another process that fetches %s", path.name)
        lock.acquire()


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{folder}: weights cannot be written there ({error.strerror or error}); make room or set "
        "TORCH_HOME to another folder"
    )
