"""Atomic writes: to a temporary file beside the target, then synced and renamed."""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, BinaryIO

from spanets_runtime.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_ASIDE = re.compile(r"\..*\.[0-9a-f]{8}\.part", re.DOTALL)

_DAY = 24 * 60 * 60


def write_atomically(
    path: str | Path,
    write: Callable[[BinaryIO], object],
    previous: str | Path | None = None,
) -> None:
    """Writes a file completely or not at all.

    The content goes to a temporary file, which is synced to disk and renamed. Until then the old
    file stays. Each writer has its own temporary file, so if several write at once, the last one
    wins. Symbolic links are followed, and a replaced file keeps its mode. Temporary files that
    killed writers left in the folder are removed.

    Args:
        path: Path of the file; missing folders are created.
        write: Function that writes to the open file.
        previous: Path that receives the old file, if there is one.

    Raises:
        UserError: the disk is full, or the path cannot be written.
    """
    path = Path(path)
    if reason := _refusal(path):
        raise UserError(f"{path}: cannot be written ({reason})")
    target = Path(os.path.realpath(path))
    aside = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(str(target.parent))
        aside = _Aside(target)
        aside.write(write)
        if previous is not None and target.exists():
            _keep(target, Path(previous))
        aside.move_to(target)
        _sync_folder(target.parent)
    except BaseException as error:  # Ctrl-C as well
        if aside is not None:
            aside.remove()
        reason = _system_reason(error)
        if reason is None:
            raise
        kept = "; the one written before is untouched" if os.path.isfile(path) else ""
        raise UserError(f"{path}: cannot be written ({reason}){kept}") from error


def check_place(path: str | Path) -> None:
    """Raises UserError if a file cannot be written at a path, before the work for it starts.

    Errors that only show when writing, such as a full disk, are left to `write_atomically`.
    """
    path = Path(path)
    folder = next(above for above in path.absolute().parents if os.path.exists(above))
    if not os.path.isdir(folder):
        reason: str | None = f"{folder} is a file"
    elif not (reason := _refusal(path)) and not os.access(folder, os.W_OK | os.X_OK):
        reason = f"no permission to create files in {folder}"
    if reason:
        raise UserError(f"{path}: cannot be written ({reason})")


def is_aside(name: str) -> bool:
    """Returns whether a name is that of a temporary file of `write_atomically`."""
    return _ASIDE.fullmatch(name) is not None


class _Aside:
    """A temporary file beside its target, locked while its writer lives."""

    def __init__(self, target: Path) -> None:
        self.path, self.file = _open_aside(target)
        with suppress(OSError):  # the target is missing, or belongs to another user
            os.chmod(self.path, stat.S_IMODE(os.stat(target).st_mode))

    def write(self, write: Callable[[BinaryIO], object]) -> None:
        """Writes the content and syncs it to the disk."""
        write(self.file)
        self.file.flush()
        os.fsync(self.file.fileno())
        if fcntl is None:
            self.file.close()  # Windows cannot rename an open file

    def move_to(self, target: Path) -> None:
        """Renames the file to the target."""
        self.path.replace(target)
        self.file.close()

    def remove(self) -> None:
        """Removes the file."""
        with suppress(OSError):  # closing flushes again, which fails on a full disk
            self.file.close()
        with suppress(OSError):
            self.path.unlink()


def _open_aside(target: Path) -> tuple[Path, BinaryIO]:
    """Opens a file with an unused name, and locks it if the file system has locks."""
    while True:
        path = _name_aside(target)
        file = path.open("xb")
        _lock(file, shared=False)
        # Before it is locked, another process may remove the file as abandoned.
        if os.path.exists(path):
            return path, file
        file.close()


def _name_aside(target: Path) -> Path:
    # File names are limited to 255 bytes, and a character takes up to four.
    return target.with_name(f".{target.name[:50]}.{token_hex(4)}.part")


def _lock(file: BinaryIO, shared: bool) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


@lru_cache(maxsize=1024)  # only once a process, because a folder may hold a million masks
def _remove_abandoned(folder: str) -> None:
    """Removes temporary files that killed processes left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_aside(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    """Removes a file that no process has locked; without locks, one older than a day."""
    with suppress(OSError), open(path, "r+b") as file:
        is_ours = try_lock(file)
        if is_ours is None:
            is_ours = time.time() - os.fstat(file.fileno()).st_mtime >= _DAY
        if is_ours:
            os.unlink(path)


def try_lock(file: IO[Any]) -> bool | None:
    """Tries to lock a file; False if another process holds the lock, None without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _keep(path: Path, previous: Path) -> None:
    """Links a file to a second path, which keeps it when the first is replaced."""
    aside = _name_aside(previous)
    with path.open("rb") as file:
        _lock(file, shared=True)  # else another process may remove the new link as abandoned
        try:
            os.link(path, aside)
        except OSError:  # no hard links: for a moment there is no file at `path`
            _move(path, previous)
            return
        aside.replace(previous)
        aside.unlink(missing_ok=True)  # rename does nothing if both are links to the same file


def _move(path: Path, previous: Path) -> None:
    """Moves a file; copies it if `previous` is on another disk."""
    try:
        path.replace(previous)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_atomically(previous, lambda file: file.write(path.read_bytes()))


def _refusal(path: Path) -> str | None:
    """Returns why a file cannot be written at a path, or None."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:  # a name that is too long, a folder without permission, a link loop
        return error.strerror
    except ValueError as error:  # a NUL in the path
        return str(error)
    if stat.S_ISDIR(mode):
        return "it is a folder; name a file in it"
    return None if stat.S_ISREG(mode) else "it is not a regular file"


def _system_reason(error: BaseException | None) -> str | None:
    """Returns the system's reason, if an OSError caused an error."""
    # When a write fails, torch's zip writer raises a RuntimeError on top, about its own position.
    while isinstance(error, RuntimeError):
        error = error.__context__
    return error.strerror if isinstance(error, OSError) else None


def _sync_folder(folder: Path) -> None:
    """Syncs a rename to the disk, on systems that support it."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
