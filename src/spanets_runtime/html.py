"""Writes pages of HTML: one file each, without scripts and references to files or addresses."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from spanets_runtime.files import write_atomically
from spanets_runtime.pictures import fit_picture
from spanets_runtime.text import escape_controls

MOST_BYTES = 2_400_000
"""Largest number of bytes of all pictures of a page, which then stays below 3 MB."""

# Names may be long or written from right to left, so they wrap anywhere and keep to themselves.
STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --quiet: #5f6368; --line: #d0d0d0;
  --box: #f2f2f2; --right: #00662a; --wrong: #b00020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #141414; --quiet: #a0a0a0;
  --line: #404040; --box: #242424; --right: #6fd08c; --wrong: #ff8a80; } }
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em auto; max-width: 72em; padding: 0 1em;
  color: var(--ink); background: var(--paper); }
h1, h2, h3, p, li, td, th, figcaption { overflow-wrap: anywhere; }
h2 { border-top: 1px solid var(--line); padding-top: .8em; }
figure { display: inline-block; margin: 0 8px 12px 0; vertical-align: top; max-width: 100%; }
figure img, figure .none { object-fit: contain; background: var(--box); max-width: 100%; }
figcaption { font-size: 12px; }
.none { display: flex; align-items: center; justify-content: center; font-size: 12px; }
.wrong { color: var(--wrong); } .right { color: var(--right); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: 2px 12px 2px 0; text-align: left; vertical-align: top; min-width: 3em; }
td:first-child, th:first-child { min-width: 7em; }
td, th { unicode-bidi: isolate; }
.number { text-align: right; min-width: 4em; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --quiet: #444;
  --line: #bbb; --box: #fff; --right: #00662a; --wrong: #b00020; } body { margin: 0; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } }
"""


def mark_of(command: str) -> bytes:
    """Returns the first bytes of the pages of a command, such as "spanets report"."""
    return f"<!DOCTYPE html><!-- {command} -->".encode()


class Page:
    """A page of pictures, of which those are left out that would make it too large.

    Args:
        mark: First bytes of the file, by which a later command knows it; see `mark_of`.
        side: Side of the square in which a picture is shown, in pixels.
        style: Styles besides those of all pages.
    """

    def __init__(self, mark: bytes, side: int = 128, style: str = "") -> None:
        self.mark, self.side, self.style = mark, side, style
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
        fit_picture(image, size).save(buffer, format="JPEG", quality=75)
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
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{to_html(title)}</title><style>{STYLE}{self.style}</style></head>"
        )
        content = self.mark + "\n".join([head, "<body>", *pieces, "</body></html>\n"]).encode()
        write_atomically(path, lambda file: file.write(content))


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as HTML, with numbers on the right; one that is undefined is a dash."""
    rows = list(rows)
    numeric = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    cells = "".join(
        f'<th class="number">{to_html(name)}</th>' if is_number else f"<th>{to_html(name)}</th>"
        for name, is_number in zip(header, numeric, strict=True)
    )
    lines = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    top = f"<tr>{cells}</tr>" if any(header) else ""
    return f'<div class="scroll"><table>{top}{"".join(lines)}</table></div>'


def _cell(value: object) -> str:
    if isinstance(value, float):
        value = f"{value:.4f}" if math.isfinite(value) else "–"
    elif value is None:
        value = "–"
    elif not isinstance(value, int):
        return f"<td>{to_html(value)}</td>"
    return f'<td class="number">{value}</td>'


def data_uri(content: bytes, kind: str) -> str:
    """Returns a picture of this kind as an address that contains it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def to_html(value: object) -> str:
    """Returns a text as HTML, with control characters escaped."""
    return html.escape(escape_controls(str(value)))
