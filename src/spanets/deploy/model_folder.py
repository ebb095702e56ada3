"""Replaces the folder that `spanets push` writes, atomically, without touching other files.

config.json holds a digest of each file, so that a later push recognises its own files. While files
are exchanged, config.json is missing, and without it nobody loads the weights. A reader sees the
old model, the new one or none, but never a mixture.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG = "config.json"
FILES = (CONFIG, "model.safetensors", "README.md")

SPACE_FILES = (*FILES, "app.py", "requirements.txt")
"""Files of a Hugging Face Space; the first is the configuration, as in `FILES`."""

_KEY = "spanets"
_ASIDE, _BEFORE = ".push", "before"


def sign(folder: Path, names: Sequence[str] = FILES) -> None:
    """Adds the digests of a folder's files to its config.json."""
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    digests = {name: _digest(folder / name) for name in names}
    (folder / CONFIG).write_text(json.dumps({**config, _KEY: digests}, indent=2), "utf-8")


def check_folder(folder: Path, names: Sequence[str] = FILES) -> None:
    """Checks that a push may write a folder.

    Args:
        folder: The folder.
        names: Files that will be written.

    Raises:
        UsageError: it is a file, or it holds a file that no push wrote or that was edited since.
    """
    where = f"--to {folder}"
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError(f"{where}: is a file; name a folder, or hf-hub:OWNER/NAME")
    found = sorted(path.name for path in folder.iterdir())
    if others := [name for name in found if name not in (*names, _ASIDE)]:
        raise UsageError(f"{where}: holds {others[0]!r}; name a new folder, or one of a push")
    known = _known_digests(folder)
    for name in found:
        if name != _ASIDE and _digest(folder / name) not in known:
            raise UsageError(
                f"{where}: {name} was not written by a push, or was edited since, and would be "
                "replaced; move it, or name a new folder"
            )


def place(source: Path, folder: Path, names: Sequence[str] = FILES) -> list[str]:
    """Moves a signed folder's files into another folder, all of them or none.

    Returns:
        The new paths.

    Raises:
        UsageError: see `check_folder`.
        UserError: the disk is full, the folder cannot be written, or another push writes there.
    """
    missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _recover(folder, names)
            check_folder(folder, names)
            _replace_all(source, folder, names)
    except BaseException as error:
        with suppress(OSError):  # something is in it
            for part in missing:
                part.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        raise
    return [str(folder / name) for name in names]


def _replace_all(source: Path, folder: Path, names: Sequence[str]) -> None:
    aside = folder / _ASIDE
    try:
        for name in names:
            write_atomically(aside / name, partial(_copy, source / name))
        _exchange(aside, folder, names)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _recover(folder: Path, names: Sequence[str]) -> None:
    """Restores the files that an interrupted push had moved, and removes its leftovers."""
    aside = folder / _ASIDE
    if not (folder / CONFIG).exists() and (aside / _BEFORE / CONFIG).exists():
        for name in reversed(names):
            with suppress(FileNotFoundError):
                (aside / _BEFORE / name).replace(folder / name)
    elif not (folder / CONFIG).exists():  # it was the first push: nothing was there before
        placed = _read_digests(aside / CONFIG)
        for path in (folder / name for name in names):
            if path.is_file() and _digest(path) in placed:
                path.unlink()
    shutil.rmtree(aside, ignore_errors=True)


def _copy(source: Path, file: BinaryIO) -> None:
    with source.open("rb") as content:
        shutil.copyfileobj(content, file)


def _exchange(aside: Path, folder: Path, names: Sequence[str]) -> None:
    """Moves the staged files into the folder; restores the old files if that fails."""
    before = aside / _BEFORE
    before.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for name in names:  # the configuration first
            if os.path.lexists(folder / name):
                _move(folder / name, before / name, moved)
        for name in reversed(names):  # and last
            _move(aside / name, folder / name, moved)
    except BaseException:
        for old, new in reversed(moved):
            new.replace(old)
        raise


def _move(old: Path, new: Path, moved: list[tuple[Path, Path]]) -> None:
    old.replace(new)
    moved.append((old, new))


def _known_digests(folder: Path) -> set[str]:
    """Returns the digests of files that pushes wrote, including an interrupted push."""
    aside = folder / _ASIDE
    return {
        digest
        for path in (folder / CONFIG, aside / CONFIG, aside / _BEFORE / CONFIG)
        for digest in _read_digests(path)
    }


def _read_digests(path: Path) -> list[str]:
    signed = _read_config(path).get(_KEY)
    return [str(digest) for digest in signed.values()] if isinstance(signed, dict) else []


def _digest(path: Path) -> str:
    """Returns a file's digest; for config.json, the digests in it are left out."""
    if not path.is_file():
        return "none"
    try:
        if path.name == CONFIG and (config := _read_config(path)):
            config.pop(_KEY, None)
            content = json.dumps(config, sort_keys=True).encode()
        else:
            content = path.read_bytes()
    except OSError:
        return "none"
    return hashlib.sha256(content).hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder against other pushes."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{folder}: another push writes there; wait for it") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)
