"""Makes text from files, such as class names and paths, safe to show on a terminal."""

import re
from collections.abc import Mapping
from typing import Any

# Characters that move the cursor, end a line or reverse text: C0, DEL, C1, the line and paragraph
# separators, and bidirectional overrides and isolates. Also surrogates: Python uses them for bytes
# of file names that are not UTF-8, and they cannot be printed.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str, keep: str = "") -> str:
    r"""Escapes the control characters of a text as in Python: `\n`, `\x1b`, `\u202e`.

    Args:
        text: Text from a file or a user.
        keep: Control characters to keep.
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def escape_values(value: Any) -> Any:
    """Applies `escape_controls` to every string and key in nested values."""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, Mapping):
        return {escape_values(key): escape_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [escape_values(inner) for inner in value]
    return value


def shorten(text: str, longest: int = 100) -> str:
    """Cuts a text that is longer than `longest` characters, and adds an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def format_duration(seconds: float) -> str:
    """Formats seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
