"""Escapes text from files, so that Markdown shows it literally."""

import re

from spanets_runtime.text import escape_controls

_MARKUP = re.compile(r"[\\`*_{}\[\]<>()#+!|~&$:@]")


def escape_markdown(text: str) -> str:
    """Escapes text for a heading or a sentence: one line, no markup, links or HTML."""
    return _MARKUP.sub(r"\\\g<0>", escape_controls(text))


def code_span(text: str) -> str:
    """Returns text as inline code, also if it contains backticks.

    In a table cell, the caller must also escape `|` by a backslash.
    """
    shown = escape_controls(text) or " "
    fence = "`" * (_longest_run(shown) + 1)
    padded = shown.startswith("`") or shown.endswith("`") or shown[0] == shown[-1] == " "
    pad = " " if padded and shown.strip(" ") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Returns lines of text as a code block, also if they contain backticks."""
    fence = "`" * max(3, _longest_run(text) + 1)
    shown = escape_controls(text, keep="\n").rstrip("\n")
    return f"{fence}{language}\n{shown}\n{fence}"


def _longest_run(text: str) -> int:
    """Returns the length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
