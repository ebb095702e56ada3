"""Files that are never half there: written aside, synced, renamed."""

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
from typing import BinaryIO

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
    """Writes a file whole or not at all: aside, synced to the disk, then renamed.

    Whatever was at `path` stays there until the new content is safe. Each writer has a file of its
    own aside, so that of several at once the last one stays. A link is followed, a file that is
    replaced keeps its mode, and what killed writers left aside in the folder is removed.

    Args:
        path: Of the file; missing folders are made.
        write: Is given the open file.
        previous: Where what was at `path` is kept afterwards.

    Raises:
        UserError: the disk is full, or the place cannot be written.
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
    """Raises UserError for a place where no file can be written, before work is done for it.

    What only writing shows, such as a full disk, is left to `write_atomically`.
    """
    path = Path(path)
    folder = next(above for above in path.absolute().parents if os.path.exists(above))
    if not os.path.isdir(folder):
        reason: str | None = f"{folder} is a file"
    elif not (reason := _refusal(path)) and not os.access(folder, os.W_OK | os.X_OK):
        reason = f"{folder} allows no new files"
    if reason:
        raise UserError(f"{path}: cannot be written ({reason})")


def is_aside(name: str) -> bool:
    """Tells whether a file's name is that of one written aside, perhaps by a killed process."""
    return _ASIDE.fullmatch(name) is not None


class _Aside:
    """A new file beside its target, locked for as long as its writer lives."""

    def __init__(self, target: Path) -> None:
        self.path, self.file = _open_aside(target)
        with suppress(OSError):  # there is none, or it is another user's
            os.chmod(self.path, stat.S_IMODE(os.stat(target).st_mode))

    def write(self, write: Callable[[BinaryIO], object]) -> None:
        """Writes the content and brings it to the disk."""
        write(self.file)
        self.file.flush()
        os.fsync(self.file.fileno())
        if fcntl is None:
            self.file.close()  # Windows renames no open file

    def move_to(self, target: Path) -> None:
        """Puts the file in the target's place."""
        self.path.replace(target)
        self.file.close()

    def remove(self) -> None:
        """Removes what is left of the file."""
        with suppress(OSError):  # what a full disk did not take is flushed once more
            self.file.close()
        with suppress(OSError):
            self.path.unlink()


def _open_aside(target: Path) -> tuple[Path, BinaryIO]:
    """Opens a file of an unused name, and locks it where the file system has locks."""
    while True:
        path = _name_aside(target)
        file = path.open("xb")
        _lock(file, shared=False)
        # Between its creation and its lock another process may take the file for abandoned.
        if os.path.exists(path):
            return path, file
        file.close()


def _name_aside(target: Path) -> Path:
    # Names have room for 255 bytes; those of a character are four at most.
    return target.with_name(f".{target.name[:50]}.{token_hex(4)}.part")


def _lock(file: BinaryIO, shared: bool) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


@lru_cache(maxsize=1024)  # once a process: a folder may hold a million masks
def _remove_abandoned(folder: str) -> None:
    """Removes what killed processes left aside in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_aside(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    """Removes a file that no process has locked; where there are no locks, one of yesterday."""
    with suppress(OSError), open(path, "r+b") as file:
        if _is_in_use(file):
            return
        os.unlink(path)


def _is_in_use(file: BinaryIO) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            pass
        else:
            return False
    return time.time() - os.fstat(file.fileno()).st_mtime < _DAY


def _keep(path: Path, previous: Path) -> None:
    """Gives a file a second name, under which it is left when the first is given away."""
    aside = _name_aside(previous)
    with path.open("rb") as file:
        _lock(file, shared=True)  # so that nobody takes the second name for abandoned
        try:
            os.link(path, aside)
        except OSError:  # a file system without links: for a moment nothing is at `path`
            _move(path, previous)
            return
        aside.replace(previous)
        aside.unlink(missing_ok=True)  # renaming a link to another of the same file does nothing


def _move(path: Path, previous: Path) -> None:
    """Moves a file, or copies it to another disk, to which links may lead."""
    try:
        path.replace(previous)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_atomically(previous, lambda file: file.write(path.read_bytes()))


def _refusal(path: Path) -> str | None:
    """Says why a path cannot be that of a file to be written, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:  # a name that is too long, a folder that may not be entered, a loop
        return error.strerror
    if stat.S_ISDIR(mode):
        return "it is a folder; name a file in it"
    return None if stat.S_ISREG(mode) else "it is no regular file"


def _system_reason(error: BaseException | None) -> str | None:
    """Returns what the system said, if it is the cause of an error."""
    # When a write fails, torch's zip writer raises a RuntimeError on top, about its own position.
    while isinstance(error, RuntimeError):
        error = error.__context__
    return error.strerror if isinstance(error, OSError) else None


def _sync_folder(folder: Path) -> None:
    """Brings a rename to the disk, on systems that can do so."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
