"""Text of files, such as names of classes and paths, made safe to show on a terminal."""

import re
from collections.abc import Mapping
from typing import Any

# What moves a cursor, ends a line or turns text around: C0, DEL, C1, the line and paragraph
# separators, and bidirectional overrides and isolates. Beside them the surrogates, which stand for
# bytes of a file's name that are no UTF-8 and cannot be written.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str, keep: str = "") -> str:
    r"""Returns a text with its control characters written as in Python: `\n`, `\x1b`, `\u202e`.

    Args:
        text: What comes from a file or a user.
        keep: Control characters that stay.
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def escape_values(value: Any) -> Any:
    """Returns plain nested values with `escape_controls` on every text in them, keys too."""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, Mapping):
        return {escape_values(key): escape_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [escape_values(inner) for inner in value]
    return value


def shorten(text: str, longest: int = 100) -> str:
    """Returns a text, or its beginning and an ellipsis where it is longer than `longest`."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
