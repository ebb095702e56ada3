"""Safe standard output and error: text from files cannot control the terminal.

All output of a command goes through a `SafeStream`, which escapes control characters. When the
other end is closed or full, the stream drops the rest, so that training goes on; if it was standard
output, `main` returns status 1.
"""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from spanets_runtime.terminal import COLOUR_CODE, RESET_CODE
from spanets_runtime.text import escape_controls

# What tqdm writes to move its bar: carriage return, and cursor up.
_MOVES = re.compile(r"\r|(?:\x1b\[A)+\Z")

# The colours that tqdm writes inside a bar.
_COLOURS = re.compile(rf"({re.escape(COLOUR_CODE)}|{re.escape(RESET_CODE)})")


class SafeStream:
    """A text stream that escapes control characters, except line ends and tabs, and never fails.

    Args:
        stream: The stream to write to; None if it was closed before the program began.

    Attributes:
        lost: Whether something could not be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.lost = stream is None
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def write(self, text: str) -> int:
        """Writes a text; returns its length in characters."""
        moves = _MOVES.match(text)
        kept = moves[0] if moves else ""
        pieces = _COLOURS.split(text[len(kept) :]) if kept else [text]  # each second is a colour
        pieces[::2] = (escape_controls(piece, "\n\t") for piece in pieces[::2])
        shown = self._encodable(kept + "".join(pieces))
        self._try(lambda: self._stream.write(shown))
        return len(text)

    def write_styled(self, text: str) -> None:
        """Writes a text with the escape sequences it holds; its words must be safe already."""
        self._try(lambda: self._stream.write(self._encodable(text)))

    def writelines(self, lines: list[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes the underlying stream."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # `copy` asks for it before it is set
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        """Escapes the characters that the stream's encoding lacks."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _try(self, write: Callable[[], object]) -> None:
        if self.lost:
            return
        try:
            write()
        except (OSError, ValueError):  # ValueError: the program itself closed it
            self.lost = True
            self._drain()

    def _drain(self) -> None:
        """Points the descriptor at /dev/null; else Python reports unwritten data when it ends."""
        with suppress(OSError, ValueError):
            descriptor, nothing = self._stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, descriptor)
            os.close(nothing)


@contextmanager
def safe_streams() -> Iterator[SafeStream]:
    """Replaces standard output and error by safe streams; yields the one for output.

    Each warning takes one line.
    """
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr, warnings.formatwarning
    output = SafeStream(sys.stdout)
    sys.stdout = cast(TextIO, output)
    sys.stderr = cast(TextIO, SafeStream(sys.stderr))
    warnings.formatwarning = _format_warning
    try:
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr, warnings.formatwarning = before


def _fill_closed_descriptors() -> None:
    """Opens closed standard streams on /dev/null; else the next file would get their number."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is None:
            with suppress(OSError):
                nothing = os.open(os.devnull, os.O_RDWR)
                if nothing != number:
                    os.dup2(nothing, number)
                    os.close(nothing)


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Formats a warning on one line, without the line of code that `warnings` adds."""
    return f"{filename}:{lineno}: {category.__name__}: {escape_controls(str(message))}\n"
