"""The folder that `spanets push` writes: replaced as a whole, and none of its files but its own.

config.json holds a digest of each file, by which a later push knows them. While the files are
exchanged there is no config.json, without which nobody loads the weights: a reader sees the old
model, the new one, or none, and never the classes of one beside the weights of the other.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
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

_KEY = "spanets"
_ASIDE, _BEFORE = ".push", "before"


def sign(folder: Path) -> None:
    """Adds the digests of a folder's files to its config.json."""
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    digests = {name: _digest(folder / name) for name in FILES}
    (folder / CONFIG).write_text(json.dumps({**config, _KEY: digests}, indent=2), "utf-8")


def check_folder(folder: Path) -> None:
    """Looks whether a push may write a folder.

    Raises:
        UsageError: it is a file, or holds one that no push has written, or that was edited since.
    """
    where = f"--to {folder}"
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError(f"{where}: is a file; name a folder, or hf-hub:OWNER/NAME")
    found = sorted(path.name for path in folder.iterdir())
    if others := [name for name in found if name not in (*FILES, _ASIDE)]:
        raise UsageError(f"{where}: holds {others[0]!r}; name a new folder, or one of a push")
    known = _known_digests(folder)
    for name in found:
        if name != _ASIDE and _digest(folder / name) not in known:
            raise UsageError(
                f"{where}: {name} is of no push, or was edited since, and would be replaced; "
                "move it, or name a new folder"
            )


def place(source: Path, folder: Path) -> list[str]:
    """Puts a signed folder's files into another, all of them or none.

    Returns:
        Their paths.

    Raises:
        UsageError: as `check_folder`.
        UserError: the disk is full, the place cannot be written, or another push writes there.
    """
    missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _recover(folder)
            check_folder(folder)
            _replace_all(source, folder)
    except BaseException as error:
        with suppress(OSError):  # something is in it
            for part in missing:
                part.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        raise
    return [str(folder / name) for name in FILES]


def _replace_all(source: Path, folder: Path) -> None:
    aside = folder / _ASIDE
    try:
        for name in FILES:
            write_atomically(aside / name, partial(_copy, source / name))
        _exchange(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Puts back what a push that was killed midway has moved, and removes the rest of it."""
    aside = folder / _ASIDE
    if not (folder / CONFIG).exists() and (aside / _BEFORE / CONFIG).exists():
        for name in reversed(FILES):
            with suppress(FileNotFoundError):
                (aside / _BEFORE / name).replace(folder / name)
    shutil.rmtree(aside, ignore_errors=True)


def _copy(source: Path, file: BinaryIO) -> None:
    with source.open("rb") as content:
        shutil.copyfileobj(content, file)


def _exchange(aside: Path, folder: Path) -> None:
    """Moves what is aside into the folder, and puts back what was there if that fails."""
    before = aside / _BEFORE
    before.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for name in FILES:  # the configuration first
            if os.path.lexists(folder / name):
                _move(folder / name, before / name, moved)
        for name in reversed(FILES):  # and last
            _move(aside / name, folder / name, moved)
    except BaseException:
        for old, new in reversed(moved):
            new.replace(old)
        raise


def _move(old: Path, new: Path, moved: list[tuple[Path, Path]]) -> None:
    old.replace(new)
    moved.append((old, new))


def _known_digests(folder: Path) -> set[str]:
    """Returns the digests of what pushes have written, among them one that was killed midway."""
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
    """Returns a file's digest; of config.json without the digests in it."""
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
    """Keeps other pushes out of a folder."""
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
