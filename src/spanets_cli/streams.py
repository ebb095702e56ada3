"""Standard output and error as a command sees them: text of files cannot act on the terminal.

Every line that a command, the library or another one prints goes through a `SafeStream`, which
writes control characters as escapes. When the other end is closed or full, it is silent from then
on: training goes on, and `main` answers with status 1 where it was standard output.
"""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from spanets_runtime.text import escape_controls

# What tqdm writes to move its bar: to the beginning of the line, and up by lines.
_MOVES = re.compile(r"\r|(?:\x1b\[A)+\Z")


class SafeStream:
    """A text stream that escapes control characters but line ends and tabs, and never fails.

    Args:
        stream: Where the text goes; None where that was closed before the program began.

    Attributes:
        lost: Whether something could not be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.lost = stream is None
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def write(self, text: str) -> int:
        """Writes a text; returns how many characters it has."""
        moves = _MOVES.match(text)
        kept = moves[0] if moves else ""
        shown = self._encodable(kept + escape_controls(text[len(kept) :], "\n\t"))
        self._try(lambda: self._stream.write(shown))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Writes texts, one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hands on what is buffered."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        """Returns a text with escapes for what the encoding of the stream lacks."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _try(self, write: Callable[[], object]) -> None:
        if self.lost:
            return
        try:
            write()
        except (OSError, ValueError):  # ValueError: it was closed by the program itself
            self.lost = True
            self._drain()

    def _drain(self) -> None:
        """Points the descriptor at nothing: else Python complains of what is left when it ends."""
        with suppress(OSError, ValueError):
            descriptor, nothing = self._stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, descriptor)
            os.close(nothing)


@contextmanager
def safe_streams() -> Iterator[SafeStream]:
    """Puts safe streams in the place of standard output and error, and yields that of the output.

    Warnings are written on one line each.
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
    """Opens standard output and error, where closed, on nothing: the next file would be there."""
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
    """Leaves out the line of code, which `warnings` would print below."""
    return f"{filename}:{lineno}: {category.__name__}: {escape_controls(str(message))}\n"
