"""What the pages of mistakes of all tasks share: their files, and the names of images."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spanets.data.packed import PackedPaths
from spanets.data.sources.folder_paths import names_in
from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place, write_atomically
from spanets_runtime.html import mark_of

PAGE = "errors.html"

MARK = mark_of("spanets eval --errors")
"""First bytes of a page."""


def check_folder(
    out: Path, own: Mapping[str, bytes], others: Sequence[str] = (), option: str = "--errors"
) -> None:
    """Checks before the work that files can be written into a folder.

    Args:
        out: The folder, which need not exist.
        own: Names of files, with the first bytes that show that `spanets` wrote them.
        others: Names of other files, which are replaced.
        option: The option that names the folder, for messages.

    Raises:
        UserError: they cannot be written, or another file is in the way.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{option} {out}: is a file; name a folder")
    for name in (*own, *others):
        check_place(out / name)
    for name, beginning in own.items():
        check_own(out / name, beginning, f"name another folder with {option}")


def check_own(path: Path, beginning: bytes, advice: str) -> None:
    """Raises a UserError, which ends with the advice, if a file exists that begins otherwise."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(beginning)) != beginning:
            raise UserError(
                f"{path}: already exists, and `spanets` did not write it; move it, or {advice}"
            )


def first_bytes(header: Sequence[str]) -> bytes:
    """Returns the first bytes of a table with this header, for `check_folder`."""
    return ",".join(header).encode()


def name_images(images: Sequence[Any], root: str | None) -> list[str]:
    """Returns the path of each image relative to the data set, or its name in a larger file."""
    if isinstance(images, PackedPaths):  # as the table has them
        return list(images.names)
    paths = [image for image in images if isinstance(image, str | os.PathLike)]
    if len(paths) < len(images):
        return [str(getattr(image, "key", image)) for image in images]
    if root is not None and os.path.isdir(os.path.expanduser(root)):
        return names_in(root, paths)
    above = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, above).replace(os.sep, "/") for path in paths]


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file; floats get six decimals, and None an empty cell.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row])
    content = text.getvalue().encode("utf-8", "surrogateescape")
    write_atomically(path, lambda file: file.write(content))
