"""Composes and writes the page of a run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spanets.report import charts, sections
from spanets.report.content import Content, check_folder, read_content
from spanets.runs.file_names import REPORT
from spanets.training.mistakes import check_own
from spanets.training.options import EvalOptions
from spanets_runtime.errors import UsageError, UserError, first_line
from spanets_runtime.files import check_place
from spanets_runtime.html import Page, mark_of, to_html

MARK = mark_of("spanets report")
"""First bytes of a page."""

SIDE = 150
"""Side of a picture in pixels, of tasks of whole images; others have twice that."""

_STYLE = (
    charts.STYLE
    + """
.quiet, small { color: var(--quiet); } small { display: block; }
.notice { border-left: 4px solid var(--wrong); background: var(--box); padding: .5em .8em; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(145px, 1fr)); gap: .6em; }
.card { background: var(--box); border-radius: 6px; padding: .6em .8em; overflow-wrap: anywhere; }
.card b { display: block; font-size: 1.45em; }
.card:first-child { border-left: 4px solid #3a8fc4; }
.example > div { font-size: 12px; margin-bottom: 1em; }
.example { display: inline-block; vertical-align: top; break-inside: avoid; margin-right: 12px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--box); padding: .7em;
  border-radius: 6px; user-select: all; margin: .4em 0; break-inside: avoid; }
summary { cursor: pointer; }
@media print { .card { border: 1px solid var(--line); } }
"""
)


@dataclass(frozen=True)
class Report:
    """A written page.

    Attributes:
        path: Its path.
        size: Its size in bytes.
        notes: Reasons why parts of it are missing.
        commands: The commands that come next.
    """

    path: Path
    size: int
    notes: list[str]
    commands: list[str]


def write_report(
    folder: str | Path, out: str | Path | None = None, options: EvalOptions | None = None
) -> Report:
    """Writes the page of a run: one HTML file that needs no other.

    Args:
        folder: The run folder; the run need not be finished.
        out: Path of the page; None means report.html in the run folder.
        options: Options for reading the evaluation images; None reads those of the run.

    Raises:
        UsageError: the path of the page is a folder.
        UserError: this is no run folder, the page cannot be written, or another file is in the way.
    """
    folder = Path(folder)
    path = folder / REPORT if out is None else Path(out)
    check_folder(folder)
    if path.is_dir():
        raise UsageError(f"--out {path}: is a folder; name a file, such as {path / REPORT}")
    check_place(path)
    check_own(path, MARK, "name another file with --out")
    content = read_content(folder, options or EvalOptions(workers=0))
    page = Page(MARK, SIDE * _scale(content), _STYLE)
    failed: list[str] = []
    body = list(_compose(content, page, failed))
    page.write(path, sections.describe_name(content.run), body)
    missing = [f"{name}: {reason}" for name, reason in content.problems.items()]
    commands = sections.next_commands(content)
    return Report(path, path.stat().st_size, [*missing, *failed], commands)


def _scale(content: Content) -> int:
    return 1 if content.task is None or content.task.is_image_level else 2


def _compose(content: Content, page: Page, failed: list[str]) -> Iterator[str]:
    """Yields all sections; one whose files have an unexpected form says so in a line."""
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "": lambda: sections.head(content),
        "Metrics": lambda: sections.metrics(content),
        "Curves": lambda: sections.curves(content),
        "Results": lambda: sections.of_task(content),
        "Images": lambda: sections.images(content, page),
        "Frequencies": lambda: sections.frequencies(content),
        "Cost": lambda: sections.cost(content),
        "Next": lambda: sections.commands(content),
        "What the run said about data and weights": lambda: sections.notes(content),
        "Settings": lambda: sections.settings(content),
        "Environment": lambda: sections.environment(content),
    }
    for title, make in parts.items():
        try:
            pieces = list(make())
        # Files of a run may be of another version, edited or damaged in any way.
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else first_line(error)
            failed.append(f"{title or 'head'}: {reason}")
            pieces = [f'<p class="notice">Not shown: {to_html(reason[:300])}</p>']
        if pieces and title:
            yield f"<h2>{to_html(title)}</h2>"
        yield from pieces
