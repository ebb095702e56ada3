"""Files that are never half there: written aside, synced, renamed."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from spanets_runtime.errors import UserError


def write_atomically(
    path: str | Path,
    write: Callable[[BinaryIO], object],
    previous: str | Path | None = None,
    shared: bool = False,
) -> None:
    """Writes a file whole or not at all: aside, synced to the disk, then renamed.

    Whatever was at `path` stays there until the new content is safe.

    Args:
        path: Of the file; missing folders are made.
        write: Is given the open file.
        previous: Where what was at `path` is kept afterwards, in the same folder.
        shared: Whether other processes may write the same at this moment: each does it in a file
            of its own, and the last one stays. Else a killed process leaves one at most.

    Raises:
        UserError: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    own = f".{token_hex(4)}" if shared else ""
    aside = path.with_name(f".{path.name}{own}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep(path, Path(previous))
        aside.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C as well
        with suppress(OSError):
            aside.unlink()
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
    folder = next(above for above in path.absolute().parents if above.exists())
    if path.is_dir():
        reason = "it is a folder; name a file in it"
    elif not folder.is_dir():
        reason = f"{folder} is a file"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"{folder} allows no new files"
    else:
        return
    raise UserError(f"{path}: cannot be written ({reason})")


def _keep(path: Path, previous: Path) -> None:
    """Gives a file a second name, under which it is left when the first is given away."""
    aside = previous.with_name(f".{previous.name}.part")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:  # a file system without links: for a moment nothing is at `path`
        path.replace(previous)
        return
    aside.replace(previous)
    aside.unlink(missing_ok=True)  # renaming a link to another of the same file does nothing


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
