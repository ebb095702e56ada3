"""One process trains in a run folder: it holds the folder's lock from its first look to its end."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from spanets_runtime.errors import UserError

try:
    import fcntl
except ImportError:  # on Windows, where no one can tell whether a run is under way
    fcntl = None  # type: ignore[assignment]

_LOCK = ".running"

_held: set[TextIO] = set()
"""The locks of this process."""


class FolderInUseError(UserError):
    """Another process trains in a folder."""


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Holds the lock of a run folder; it ends with the process, however that ends.

    The folder is made where there is none, and removed again if nothing came into it.

    Raises:
        FolderInUseError: another process trains in it.
        UserError: it cannot be written.
    """
    if fcntl is None:
        yield
        return
    missing = [folder for folder in (out, *out.parents) if not os.path.exists(folder)]
    file = _acquire(out)
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        with suppress(OSError):  # the folder was removed meanwhile
            (out / _LOCK).unlink()
        with suppress(OSError):  # something is in it
            for folder in missing:
                folder.rmdir()
        file.close()


@contextmanager
def claimed_first(folders: Iterable[Path], is_free: Callable[[Path], bool]) -> Iterator[Path]:
    """Holds the lock of the first folder that is free and in which no other process trains."""
    for folder in folders:
        with ExitStack() as stack:
            if not is_free(folder):
                continue
            try:
                stack.enter_context(claimed(folder))
            except FolderInUseError:
                continue
            # A run may have begun and ended here since the first look.
            if is_free(folder):
                yield folder
                return


def is_running(out: Path) -> bool:
    """Tells whether a process of this machine trains in a folder."""
    lock = out / _LOCK
    if fcntl is None or not os.path.isfile(lock):
        return False
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file any more, or a file system without locks
        return False
    return False


def _acquire(out: Path) -> TextIO:
    while True:
        try:
            out.mkdir(parents=True, exist_ok=True)
            file = (out / _LOCK).open("w")
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror})") from error
        if not _is_locked_by_another(file):
            if _is_at(file, out / _LOCK):
                return file
            file.close()  # its holder removed it before we had the lock
            continue
        file.close()
        raise FolderInUseError(
            f"{out}: another process trains in this folder; wait for it, or choose another --out"
        )


def _is_locked_by_another(file: TextIO) -> bool:
    """Locks a file, if no other process has."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            pass
    return False


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _let_go() -> None:
    """Closes in a forked process what it inherits: a lock lasts while anyone has it open.

    Processes that load images outlive a killed run by seconds, in which it could not be resumed.
    """
    for file in _held:
        file.close()
    _held.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)
