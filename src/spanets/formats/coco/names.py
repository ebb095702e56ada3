"""Finds the files of a folder that an annotation file names."""

import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from spanets.formats.coco.faults import Fault, show_value

# Allowed differences between names and files, the smallest first.
_NORMALIZE: dict[str, Callable[[str], str]] = {
    "Unicode forms": lambda name: unicodedata.normalize("NFC", name),
    "letter case": lambda name: unicodedata.normalize("NFC", name).casefold(),
}


def check_name(name: str) -> None:
    """Raises a Fault for a name that leaves its folder, or is no valid file name."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.root or path.drive or ".." in path.parts:
            problem = f"has the file_name {show_value(name)}, which leaves the folder"
            raise Fault("leaves the folder", problem)
    try:
        os.fsencode(name)
        names_a_file = bool(PurePosixPath(name).parts) and "\0" not in name
    except UnicodeEncodeError:
        names_a_file = False
    if not names_a_file:
        raise Fault("names no file", f"has the file_name {show_value(name)}, which names no file")


class FileNames:
    r"""Finds files of a folder by the names in an annotation file.

    If no file has a name, other forms of it are tried: with `/` for `\`, without the folder's own
    name in front, in another Unicode form, and in another letter case. A form counts if exactly one
    file has it. Files outside the folder are never considered.

    Args:
        folder: The folder of the files; it need not exist.

    Attributes:
        changed: Number of names found in each other form.
        example: The first such name and its file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed: dict[str, int] = {}
        self.example: tuple[str, Path] | None = None
        self._entries: dict[tuple[Path, str], dict[str, list[str]]] = {}

    def find(self, name: str) -> Path:
        """Returns the file for a name checked by `check_name`, or the expected path if missing."""
        exact = self.folder / name
        if os.path.isfile(exact):
            return exact
        for form, found in self._other_forms(name):
            if len(found) == 1:
                (path,) = found
                self.changed[form] = self.changed.get(form, 0) + 1
                self.example = self.example or (name, path)
                return path
            if found:
                break
        return exact

    def note(self, source: Path) -> str:
        """Returns a note about names found in another form, or ""."""
        if self.example is None:
            return ""
        count, (name, path) = sum(self.changed.values()), self.example
        forms = ", ".join(f"{form}: {number}" for form, number in self.changed.items())
        return (
            f"{source}: {count} file names are not quite those of the files ({forms}); "
            f"{show_value(name)} is taken for {path}"
        )

    def _other_forms(self, name: str) -> Iterator[tuple[str, set[Path]]]:
        """Yields pairs of a change to the name and the files that it then matches."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        own = self.folder.absolute().parts
        shorter = [parts[n:] for n in range(1, len(parts)) if own[-n:] == parts[:n]]
        for change, forms in (("backslashes", [parts]), ("the folder's own name", shorter)):
            paths = {self.folder.joinpath(*form) for form in forms}
            yield change, {path for path in paths if os.path.isfile(path)}
        for change in _NORMALIZE:
            yield change, {path for form in (parts, *shorter) for path in self._match(form, change)}

    def _match(self, parts: tuple[str, ...], change: str) -> list[Path]:
        """Returns the files whose path matches these parts after normalisation."""
        places = [self.folder]
        for part in parts:
            wanted = _NORMALIZE[change](part)
            places = [
                place / entry
                for place in places
                for entry in self._list(place, change).get(wanted, [])
            ]
        return [place for place in places if os.path.isfile(place)]

    def _list(self, folder: Path, change: str) -> dict[str, list[str]]:
        """Returns the entries of a folder by normalised name."""
        if (folder, change) not in self._entries:
            entries: dict[str, list[str]] = {}
            with suppress(OSError):
                for entry in os.listdir(folder):
                    entries.setdefault(_NORMALIZE[change](entry), []).append(entry)
            self._entries[folder, change] = entries
        return self._entries[folder, change]


def identify(path: Path) -> tuple[int, int] | str:
    """Returns a key that is equal for all names of one file, links included."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return os.path.normpath(path)
    return status.st_dev, status.st_ino
