"""HTML of the page: answers as bars, tables, lines; all text of users and models is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from math import isnan

from spanets_runtime.text import escape_controls

STYLE = """
.spanets-bar {display: grid; grid-template-columns: minmax(6em, 12em) 1fr 4em; gap: .5em;
  align-items: center; margin: .15em 0}
.spanets-bar span {overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.spanets-bar div {background: #3b82c4; height: .7em; border-radius: 2px}
.spanets-bar b {text-align: right; font-weight: normal; font-variant-numeric: tabular-nums}
.spanets-title {font-weight: 600; margin: .3em 0}
.spanets-error {color: #b3261e; font-weight: 600}
.spanets-table {border-collapse: collapse}
.spanets-table td, .spanets-table th {padding: .25em .8em; text-align: right;
  border-bottom: 1px solid #8884}
.spanets-table td:first-child, .spanets-table th:first-child {text-align: left}
label:has(> input:checked) {border-color: var(--color-accent);
  box-shadow: inset 0 0 0 1px var(--color-accent)}
input[type=radio], input[type=checkbox] {border-color: var(--body-text-color-subdued)}
input[type=radio]:checked, input[type=checkbox]:checked {
  background-color: var(--color-accent) !important}
"""


def plain(text: object) -> str:
    """Returns text for HTML, with control characters visible."""
    return escape(escape_controls(str(text)))


def heading(text: str) -> str:
    """Returns a small heading."""
    return f'<div class="spanets-title">{plain(text)}</div>'


def bars(title: str, answers: Mapping[str, float], are_shares: bool = True) -> str:
    """Returns answers as bars.

    Args:
        title: What they are the answers of.
        answers: Values by label.
        are_shares: Whether the values are from 0 to 1; other values get no bars.
    """
    rows = []
    for label, value in answers.items():
        width = 100 * min(1.0, max(0.0, value)) if are_shares else 0
        shown = f"{value:.1%}" if are_shares else f"{value:.4g}"
        rows.append(
            f'<div class="spanets-bar"><span title="{plain(label)}">{plain(label)}</span>'
            f'<div style="width: {width:.1f}%"></div><b>{shown}</b></div>'
        )
    return heading(title) + "".join(rows)


def lines(notes: Sequence[str]) -> str:
    """Returns lines of text."""
    return "<br>".join(map(plain, notes))


def error_line(message: str) -> str:
    """Returns an error as one line."""
    return f'<span class="spanets-error">{plain(message)}</span>'


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Returns numbers as a table: a row for each model, a column for each measure."""
    names = list(columns)
    head = "".join(f"<th>{plain(name)}</th>" for name in ("model", *names))
    rows = []
    for word in next(iter(columns.values()), {}):
        cells = "".join(f"<td>{_number(columns[name][word])}</td>" for name in names)
        rows.append(f"<tr><td>{plain(word)}</td>{cells}</tr>")
    return f'<table class="spanets-table"><tr>{head}</tr>{"".join(rows)}</table>'


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3g}"
