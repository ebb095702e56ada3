"""What the pages of mistakes of all tasks share: files, pictures, and tables.

A page is one HTML file without scripts and without references to other files or addresses.
"""

import base64
import csv
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from spanets.data.packed import PackedPaths
from spanets.data.sources.folder import names_in
from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place, write_atomically
from spanets_runtime.text import escape_controls

PAGE = "errors.html"

MARK = b"<!DOCTYPE html><!-- spanets eval --errors -->"
"""First bytes of a page."""

MOST_BYTES = 2_400_000
"""Largest number of bytes of all pictures of a page, which then stays below 3 MB."""

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; }
figure { display: inline-block; margin: 0 8px 12px 0; vertical-align: top; }
figure img, figure .none { object-fit: contain; background: #eee; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
.none { display: flex; align-items: center; justify-content: center; font-size: 12px; }
.wrong { color: #b00020; } .right { color: #00662a; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: 2px 12px 2px 0; }
th { text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
h2 { border-top: 1px solid #ccc; padding-top: .8em; }
@media print { body { margin: 0; } figure { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


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
        if (out / name).is_file():
            with (out / name).open("rb") as file:
                if file.read(len(beginning)) != beginning:
                    raise UserError(
                        f"{out / name}: already exists, and `spanets` did not write it; move "
                        f"it, or name another folder with {option}"
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


class Page:
    """A page of pictures, of which those are left out that would make it too large.

    Args:
        side: Side of the square in which a picture is shown, in pixels.
    """

    def __init__(self, side: int = 128) -> None:
        self.side = side
        self.left = MOST_BYTES
        self.left_out = 0

    def figure(
        self, image: Image.Image | None, lines: Sequence[str], title: str, wide: int = 1
    ) -> str:
        """Returns a picture with lines of HTML below it.

        Args:
            image: The picture, or None for an image that cannot be read.
            lines: Caption, as HTML.
            title: Text that is shown when the pointer is on the figure.
            wide: Width of the picture in squares.
        """
        size = self.side * wide, self.side
        box = f'style="width:{size[0]}px;height:{size[1]}px"'
        shown = f'<div class="none" {box}>cannot be read</div>'
        if image is not None:
            shown = self._picture(image, size, box)
        return (
            f'<figure style="width:{size[0] + 12}px" title="{to_html(title)}">{shown}'
            f"<figcaption>{'<br>'.join(lines)}</figcaption></figure>"
        )

    def _picture(self, image: Image.Image, size: tuple[int, int], box: str) -> str:
        buffer = io.BytesIO()
        ImageOps.contain(image, size).save(buffer, format="JPEG", quality=75)
        uri = data_uri(buffer.getvalue(), "jpeg")
        if len(uri) > self.left:
            self.left_out += 1
            return f'<div class="none" {box}>left out</div>'
        self.left -= len(uri)
        return f'<img alt="" {box} src="{uri}">'

    def write(self, path: Path, title: str, body: Iterable[str]) -> None:
        """Writes the page.

        Args:
            path: Path of the file.
            title: Title of the page, as text.
            body: Pieces of HTML.

        Raises:
            UserError: the file cannot be written.
        """
        pieces = [f"<h1>{to_html(title)}</h1>", *body]
        if self.left_out:
            pieces.append(f"<p>{self.left_out} pictures left out to keep the page small.</p>")
        head = (
            '<html lang="en"><head><meta charset="utf-8">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "img-src data:; style-src 'unsafe-inline'\">"
            f"<title>{to_html(title)}</title><style>{_STYLE}</style></head>"
        )
        content = MARK + "\n".join([head, "<body>", *pieces, "</body></html>\n"]).encode()
        write_atomically(path, lambda file: file.write(content))


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as HTML, with numbers on the right."""
    cells = "".join(f"<th>{to_html(name)}</th>" for name in header)
    lines = [f"<table><tr>{cells}</tr>"]
    for row in rows:
        shown = [
            f'<td class="number">{cell}</td>'
            if isinstance(cell, int | float)
            else f"<td>{to_html(cell)}</td>"
            for cell in row
        ]
        lines.append(f"<tr>{''.join(shown)}</tr>")
    return "".join([*lines, "</table>"])


def data_uri(content: bytes, kind: str) -> str:
    """Returns a picture of this kind as an address that contains it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def to_html(value: object) -> str:
    """Returns a text as HTML, with control characters escaped."""
    return html.escape(escape_controls(str(value)))
