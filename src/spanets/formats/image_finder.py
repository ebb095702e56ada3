"""Finds the image files that annotations name, within the folder of a data set."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spanets.formats.coco.faults import Fault
from spanets.formats.coco.names import FileNames, check_name
from spanets_runtime.listing import list_images


@dataclass(frozen=True)
class Guess:
    """The only image file of a name, which lies in another folder than its annotation says."""

    path: Path


class ImageFinder:
    """Finds the image files of a data set by the names in its annotations, never outside it.

    Args:
        root: The folder of the data set.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[Path, FileNames] = {}
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, names: Iterable[str], *folders: Path) -> Path | Guess | None:
        """Returns the file of one of the names, or None.

        Each is searched in `folders`, then anywhere by its last part alone, if one file has that.

        Args:
            names: Paths as a tool wrote them, perhaps of another computer.
            folders: Folders to which they may be relative.
        """
        with_slashes = [name.replace("\\", "/") for name in names]
        for name in with_slashes:
            try:
                check_name(name)
            except Fault:  # an absolute path, or one with "..": only its last part counts
                continue
            for folder in folders:
                known = self._folders.setdefault(folder, FileNames(folder))
                found = known.find(name)
                if os.path.isfile(found):
                    return found
        for name in with_slashes:
            fitting = self._listed().get(PurePosixPath(name).name.casefold(), [])
            if len(fitting) == 1:
                return Guess(fitting[0])
        return None

    def _listed(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for path in list_images(self.root).images:
                self._by_name.setdefault(path.name.casefold(), []).append(path)
        return self._by_name
