"""Prints what a command answers, for people; text of files in it stays on its line."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spanets_runtime.text import escape_controls, escape_values


class OutputLostError(Exception):
    """Nobody reads standard output any more, or its disk is full: there is nothing left to do."""


def say(line: object = "") -> None:
    """Prints a line.

    Raises:
        OutputLostError: it cannot be written; what a command would go on to print is in vain.
    """
    print(escape_controls(str(line)), flush=True)
    if getattr(sys.stdout, "lost", False):
        raise OutputLostError


def tell(line: object) -> None:
    """Prints a line on standard error: a note, a warning, or what went wrong."""
    print(escape_controls(str(line)), file=sys.stderr, flush=True)


def say_described(describe: Callable[[Mapping[str, Any]], str], results: Mapping[str, Any]) -> None:
    """Prints the lines that a function makes of results, whatever names are in these."""
    for line in describe(escape_values(results)).split("\n"):
        say(line)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints aligned columns, numbers to the right."""
    shown = [[escape_controls(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    for row in shown:
        cells = [
            cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())
