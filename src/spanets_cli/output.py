"""Prints the output of a command: lines of text, with control characters escaped, or JSON."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spanets_cli.streams import SafeStream
from spanets_runtime.terminal import is_styled
from spanets_runtime.text import escape_controls, escape_values


class OutputLostError(Exception):
    """Standard output is closed, or its disk is full."""


def say(line: object = "") -> None:
    """Prints a line.

    Raises:
        OutputLostError: it cannot be written; the command need not go on.
    """
    print(escape_controls(str(line)), flush=True)
    _check_output()


def _check_output() -> None:
    if getattr(sys.stdout, "lost", False):
        raise OutputLostError


def tell(line: object) -> None:
    """Prints a line on standard error: a note, a warning or an error."""
    print(escape_controls(str(line)), file=sys.stderr, flush=True)


def print_notes(notes: Iterable[str]) -> None:
    """Prints notes on what was left out, renamed or changed, one a line, on standard error."""
    for note in notes:
        tell(note)


def say_described(describe: Callable[[Mapping[str, Any]], str], results: Mapping[str, Any]) -> None:
    """Prints the lines that `describe` makes of results; names in them are escaped first."""
    for line in describe(escape_values(results)).split("\n"):
        say(line)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints aligned columns, those between the first and the last right-aligned.

    A terminal gets a table that fits its width; files and pipes get plain lines, one a row.

    Raises:
        OutputLostError: they cannot be written; the command need not go on.
    """
    shown = [[escape_controls(cell) for cell in row] for row in (header, *rows)]
    if is_styled(sys.stdout):
        _draw_table(shown[0], shown[1:])
        return
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    for row in shown:
        cells = [
            cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def _draw_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draws a table with rich, which folds long cells and obeys NO_COLOR."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False)
    for i, title in enumerate(header):
        aligned: Any = "left" if i in (0, len(header) - 1) else "right"
        style = "cyan" if i == 0 else None
        table.add_column(Text(title), justify=aligned, style=style, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: brackets in a cell are no markup
    console = Console(file=sys.stdout)
    with console.capture() as drawn:
        console.print(table)
    stream = sys.stdout
    write = stream.write_styled if isinstance(stream, SafeStream) else stream.write
    write(drawn.get())
    sys.stdout.flush()
    _check_output()


def print_json(value: Any) -> int:
    """Prints values as JSON; NaN and infinities become null, because JSON has neither.

    Args:
        value: Nested lists, dictionaries, strings and numbers.

    Returns:
        The exit status: 1 if a number became null, which standard error reports; else 0.

    Raises:
        OutputLostError: they cannot be written; the command need not go on.
    """
    places: list[str] = []
    print(json.dumps(_plain(value, "", places), indent=2, allow_nan=False), flush=True)
    if places:
        count = f"{len(places)} numbers are" if len(places) > 1 else "1 number is"
        tell(f"spanets: {count} not finite, printed as null, such as {places[0]}")
    _check_output()
    return int(bool(places))


def _plain(value: Any, place: str, places: list[str]) -> Any:
    """Replaces NaN and infinities by None and adds their paths to `places`."""
    if isinstance(value, float) and not math.isfinite(value):
        places.append(place.lstrip("."))
        return None
    if isinstance(value, dict):
        return {key: _plain(inner, f"{place}.{key}", places) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{place}[{i}]", places) for i, inner in enumerate(value)]
    return value
