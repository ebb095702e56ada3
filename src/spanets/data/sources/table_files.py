"""Finds the image files that a table names, by listing their folders.

A table may come from somebody else. So a path may not lead out of the folder of the images, by
`..` or as an absolute path; an absolute path into this folder is fine. Links are followed, as in
folders of classes.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spanets.data.class_names import normal
from spanets_runtime.listing import is_image_name

_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass
class Found:
    """The files that a table names.

    Attributes:
        names: Path of each row below the folder, with forward slashes; None if it is unusable.
        outside, missing: Rows whose path leads out of the folder, and rows without a file.
        notes: Messages about paths that name a file in another spelling.
    """

    names: list[str | None]
    outside: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_files(paths: Sequence[str], root: Path) -> Found:
    """Finds the files of a table's paths; an empty path is None, and neither outside nor missing.

    A folder is listed once, so that a million files need no million requests to the file system.

    Args:
        paths: The paths, relative to `root`.
        root: The folder of the images.
    """
    found = Found([])
    start = os.path.abspath(root).replace(os.sep, "/").rstrip("/") + "/"
    turned = sum("\\" in path for path in paths)
    folders: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        name = _relative(path, start) if path else None
        if path and name is None:
            found.outside.append(row)
        found.names.append(name)
        if name is not None:
            folders.setdefault(name.rpartition("/")[0], []).append(row)
    respelled: list[str] = []
    for folder, rows in folders.items():
        _find_in(root / folder, rows, found, respelled)
    if turned:
        found.notes.append(f"{turned:,} paths with backslashes, which are read as slashes")
    if respelled:
        found.notes.append(
            f"{len(respelled):,} paths name a file without its suffix, or in another Unicode "
            f"spelling, such as {respelled[0]}"
        )
    found.missing.sort()
    return found


def _relative(path: str, start: str) -> str | None:
    """Returns a path below the folder `start`, normalised, or None if it leads outside."""
    if not ("\\" in path or "//" in path or "./" in path or ":" in path or path[0] == "/"):
        return path
    path = path.replace("\\", "/")
    if "://" in path or path.startswith("//"):
        return None
    if path.startswith("/") or _DRIVE.match(path):
        path = os.path.normpath(path).replace(os.sep, "/")
        return path[len(start) :] if path.startswith(start) else None
    path = os.path.normpath(path).replace(os.sep, "/")
    return None if path == ".." or path.startswith("../") else path


def _find_in(folder: Path, rows: list[int], found: Found, respelled: list[str]) -> None:
    """Looks for the files of one folder; replaces names that are spelled otherwise on disk."""
    try:
        present = set(os.listdir(folder))
    except (OSError, ValueError):  # no such folder, or a NUL in its name
        present = set()
    others: dict[str, list[str]] | None = None
    for row in rows:
        name = found.names[row]
        assert name is not None
        before, slash, last = name.rpartition("/")
        if last in present:
            continue
        if others is None:
            others = _other_spellings(present)
        match = others.get(normal(last), [])
        if len(match) == 1:
            respelled.append(f"{name} for {match[0]}")
            found.names[row] = before + slash + match[0]
        else:
            found.missing.append(row)
            found.names[row] = None


def _other_spellings(present: set[str]) -> dict[str, list[str]]:
    """Returns the files by their names in Unicode's NFC form, and images by names without suffix.

    Many tables name images by numbers without a suffix.
    """
    others: dict[str, list[str]] = {}
    for name in sorted(present):
        others.setdefault(normal(name), []).append(name)
        if is_image_name(name):
            others.setdefault(normal(os.path.splitext(name)[0]), []).append(name)
    return others
