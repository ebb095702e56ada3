"""Text of files as Markdown: shown as it is, whatever markup it holds."""

import re

from spanets_runtime.text import escape_controls

_MARKUP = re.compile(r"[\\`*_{}\[\]<>()#+!|~&$:@]")


def escape_markdown(text: str) -> str:
    """Returns text for a heading or a sentence, on one line, without markup, links or HTML."""
    return _MARKUP.sub(r"\\\g<0>", escape_controls(text))


def code_span(text: str) -> str:
    """Returns text as code within a line; its own backticks do not end it.

    In the cell of a table, a `|` has to be escaped as well, by a backslash.
    """
    shown = escape_controls(text) or " "
    fence = "`" * (_longest_run(shown) + 1)
    padded = shown.startswith("`") or shown.endswith("`") or shown[0] == shown[-1] == " "
    pad = " " if padded and shown.strip(" ") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Returns text of several lines as a block of code; no line of it ends the block."""
    fence = "`" * max(3, _longest_run(text) + 1)
    shown = escape_controls(text, keep="\n").rstrip("\n")
    return f"{fence}{language}\n{shown}\n{fence}"


def _longest_run(text: str) -> int:
    """Returns how many backticks stand side by side at most."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
