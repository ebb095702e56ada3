"""Lists the images of a folder, with the same rules for every command, and what it leaves out."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from spanets_runtime.decoding.formats import IMAGE_SUFFIXES, UNREADABLE_SUFFIXES
from spanets_runtime.errors import UserError

T = TypeVar("T")

# Files of operating systems, storage servers and archive programs, in lower case.
_SYSTEM = frozenset(
    {"@eadir", "#recycle", "@recycle", "__macosx", "$recycle.bin", "lost+found"}
    | {"system volume information", "thumbs.db", "desktop.ini"}
)


_ARRAYS = frozenset({".npy"})
_EXTRA: ContextVar[frozenset[str]] = ContextVar("_EXTRA", default=frozenset())


@contextmanager
def listing_arrays(is_wanted: bool = True) -> Iterator[None]:
    """Lists NumPy arrays as images of a folder, for models that read stored numbers.

    Elsewhere an .npy file beside an image is mostly something else, such as its features.
    """
    token = _EXTRA.set(_ARRAYS if is_wanted else frozenset())
    try:
        yield
    finally:
        _EXTRA.reset(token)


@dataclass(frozen=True)
class Listing:
    """The files in a folder.

    Attributes:
        folder: Path of the folder.
        images: Paths of the image files, sorted.
        left_out: Number of other files, by suffix in lower case; "" for no suffix.
        links: Links to folders, which are not followed.
    """

    folder: Path
    images: list[Path]
    left_out: Counter[str]
    links: list[Path] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Returns a line about each kind of file that was left out."""
        return (
            *describe_left_out(self.folder, self.left_out),
            *describe_links(self.folder, self.links),
        )


def describe_links(folder: Path, links: list[Path]) -> tuple[str, ...]:
    """Returns a line about links that are not followed, if there are any."""
    if not links:
        return ()
    count = f"{len(links)} link{'s' * (len(links) > 1)}"
    return (f"{folder}: {count} to folders not followed, such as {links[0]}",)


@dataclass(frozen=True)
class FoundImage(os.PathLike[str]):
    """An image file and its relative path in the searched folder.

    Attributes:
        path: Path of the file.
        place: Relative path without suffix, or the stem of a file that was given directly.
    """

    path: Path
    place: str

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


ImageSource = str | os.PathLike[str]
"""An image to predict: a path or a `FoundImage`."""


@dataclass(frozen=True)
class Gathered:
    """The images of given files and folders.

    Attributes:
        images: Images in the order of the files and folders.
        notes: Lines about files that were left out.
    """

    images: list[FoundImage]
    notes: tuple[str, ...]


def spread_evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """Returns at most `limit` items, evenly spread: of sorted files, over all class folders."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def describe_left_out(folder: Path, left_out: Counter[str]) -> tuple[str, ...]:
    """Returns a line about files without an image suffix, if there are any."""
    if not left_out:
        return ()
    kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in left_out.items())
    count = left_out.total()
    needs = {UNREADABLE_SUFFIXES[name]: name for name in left_out if name in UNREADABLE_SUFFIXES}
    hint = "".join(f"; {suffix} {need}" for need, suffix in needs.items())
    files = f"{count} file{'s' * (count > 1)}"
    return (f"{folder}: {files} left out, not known as images ({kinds}){hint}",)


def is_system(name: str) -> bool:
    """Returns whether a name is that of a hidden or system file or folder."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image_name(name: str) -> bool:
    """Returns whether a file name has an image suffix."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in IMAGE_SUFFIXES or suffix in _EXTRA.get()


def list_entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder, sorted by name, without hidden and system ones.

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
    """Lists the image files of a folder by suffix, without hidden and system entries.

    Links to files are followed. Links to folders are not, because they may form loops.

    Args:
        folder: Path of the folder.
        recursive: Whether to search sub-folders, at any depth.

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


def images_below(folder: str | os.PathLike[str]) -> Listing:
    """Lists a folder that must contain images, at any depth; NumPy arrays if it has no others.

    Raises:
        UserError: no such folder, one that cannot be read, or no images in it.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such folder")
    found = list_images(root)
    if not found.images:
        with listing_arrays():
            found = list_images(root)
    if not found.images:
        raise UserError("; ".join([f"{root}: a folder without images", *found.notes()]))
    return found


def gather_images(paths: Iterable[str | os.PathLike[str]]) -> Gathered:
    """Returns the given files, and the images in the given folders, at any depth, sorted.

    Files are not checked here; reading them later reports their errors.

    Raises:
        UserError: a folder has no images or cannot be read.
    """
    images: list[FoundImage] = []
    notes: list[str] = []
    for path in map(Path, paths):
        if not os.path.isdir(path):
            images.append(FoundImage(path, path.stem))
            continue
        found = images_below(path)
        places = (str(image.relative_to(path).with_suffix("")) for image in found.images)
        images += map(FoundImage, found.images, places)
        notes += found.notes()
    return Gathered(images, tuple(notes))


def _walk(folder: Path, recursive: bool, links: list[Path]) -> Iterator[os.DirEntry[str]]:
    """Yields the files of a folder, and adds links to folders to `links`.

    Broken links are yielded too; reading them reports the error. This is a loop, because folders
    may be nested deeper than Python's stack.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        for entry in list_entries(waiting.pop()):
            if _is_folder(entry):
                if recursive and entry.is_symlink():
                    links.append(Path(entry.path))
                elif recursive:
                    waiting.append(entry.path)
            elif entry.is_symlink() or entry.is_file():
                yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link loop, or a folder without permission
        return False
