"""Lists the images of a folder, by one rule for every command, and says what it leaves out."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spanets_runtime.errors import UserError
from spanets_runtime.images import IMAGE_SUFFIXES

# What file systems, storage servers and archivers leave behind, in lower case.
_SYSTEM = frozenset(
    {"@eadir", "#recycle", "@recycle", "__macosx", "$recycle.bin", "lost+found"}
    | {"system volume information", "thumbs.db", "desktop.ini"}
)


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        folder: Which.
        images: The image files, sorted.
        left_out: How many other files there are, by suffix in lower case; "" for those without one.
        links: Links to folders, which are not followed.
    """

    folder: Path
    images: list[Path]
    left_out: Counter[str]
    links: list[Path] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Returns a line about each kind that was left out."""
        return (
            *describe_left_out(self.folder, self.left_out),
            *describe_links(self.folder, self.links),
        )


def describe_links(folder: Path, links: list[Path]) -> tuple[str, ...]:
    """Returns a line about links to folders that are not followed, or none."""
    if not links:
        return ()
    count = f"{len(links)} link{'s' * (len(links) > 1)}"
    return (f"{folder}: {count} to folders not followed, such as {links[0]}",)


def describe_left_out(folder: Path, left_out: Counter[str]) -> tuple[str, ...]:
    """Returns a line about files that are no images by their suffix, or none."""
    if not left_out:
        return ()
    kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in left_out.items())
    count = left_out.total()
    return (f"{folder}: {count} file{'s' * (count > 1)} left out, not known as images ({kinds})",)


def is_system(name: str) -> bool:
    """Tells names of hidden files and folders, and of those that systems and archivers add."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image_name(name: str) -> bool:
    """Tells by its suffix whether a file is taken for an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def list_entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Returns what a folder holds, sorted by name, without hidden and system entries.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not is_system(entry.name)]
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{os.fspath(folder)}: cannot be read ({reason})") from error
    return sorted(kept, key=lambda entry: entry.name)


def list_images(folder: str | os.PathLike[str], recursive: bool = True) -> Listing:
    """Lists the image files of a folder, by their suffix; hidden and system entries are skipped.

    Links to files are followed, links to folders below the folder are not: no loop can trap it.

    Args:
        folder: Where to look.
        recursive: Look into sub-folders, at any depth.

    Raises:
        UserError: the folder, or one below it, does not exist or cannot be read.
    """
    root, images, left_out = Path(folder), [], Counter[str]()
    links: list[Path] = []
    for entry in _walk(root, recursive, links):
        if is_image_name(entry.name):
            images.append(Path(entry.path))
        else:
            left_out[os.path.splitext(entry.name)[1].lower()] += 1
    return Listing(root, sorted(images), Counter(dict(sorted(left_out.items()))), sorted(links))


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Returns the image files of a folder, at any depth, sorted.

    Raises:
        UserError: no such folder, one that cannot be read, or no images in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    found = list_images(root)
    if not found.images:
        raise UserError("; ".join([f"{root}: a folder without images", *found.notes()]))
    return found.images


def _walk(folder: Path, recursive: bool, links: list[Path]) -> Iterator[os.DirEntry[str]]:
    """Yields the files of a folder; broken links, which an error tells of when they are read, too.

    A loop, not a recursion: folders may lie deeper than Python's stack. Links to folders are added
    to `links`.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        for entry in list_entries(waiting.pop()):
            if entry.is_dir():
                if recursive and entry.is_symlink():
                    links.append(Path(entry.path))
                elif recursive:
                    waiting.append(entry.path)
            elif entry.is_file() or entry.is_symlink():
                yield entry
