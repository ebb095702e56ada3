"""Locks run folders, so that only one process trains in each."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from spanets_runtime.errors import UserError
from spanets_runtime.files import try_lock

try:
    import fcntl
except ImportError:  # on Windows there are no locks, so a running run is not detected
    fcntl = None  # type: ignore[assignment]

_LOCK = ".running"

_held: set[TextIO] = set()
"""The lock files that this process holds."""


class FolderInUseError(UserError):
    """Another process trains in a folder."""


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Holds the lock of a run folder; the lock ends with the process, even if it is killed.

    The folder is created if it is missing, and removed at the end if it is still empty.

    Raises:
        FolderInUseError: another process trains in the folder.
        UserError: the folder cannot be written.
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
        with suppress(OSError):  # the folder may be gone
            (out / _LOCK).unlink()
        with suppress(OSError):  # a folder that is not empty stays
            for folder in missing:
                folder.rmdir()
        file.close()


@contextmanager
def claimed_first(folders: Iterable[Path], is_free: Callable[[Path], bool]) -> Iterator[Path]:
    """Locks and yields the first folder that is free and that no other process uses."""
    for folder in folders:
        with ExitStack() as stack:
            if not is_free(folder):
                continue
            try:
                stack.enter_context(claimed(folder))
            except FolderInUseError:
                continue
            # Another run may have started and ended here before we had the lock.
            if is_free(folder):
                yield folder
                return


def is_running(out: Path) -> bool:
    """Returns whether a process of this machine trains in a folder."""
    lock = out / _LOCK
    if fcntl is None or not os.path.isfile(lock):
        return False
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file is gone, or the file system has no locks
        return False
    return False


def _acquire(out: Path) -> TextIO:
    while True:
        try:
            out.mkdir(parents=True, exist_ok=True)
            file = (out / _LOCK).open("w")
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror})") from error
        if try_lock(file) is not False:  # also on a file system without locks
            if _is_at(file, out / _LOCK):
                return file
            file.close()  # the previous holder removed this file before we had the lock
            continue
        file.close()
        raise FolderInUseError(
            f"{out}: another process trains in this folder; wait for it, or choose another --out"
        )


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _close_inherited() -> None:
    """Closes inherited lock files in a forked process, because each open copy keeps the lock.

    Loader processes live on for seconds after a run is killed; it could not be resumed meanwhile.
    """
    for file in _held:
        file.close()
    _held.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_close_inherited)
