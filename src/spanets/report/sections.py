"""The sections of the page of a run, each a function from its content to pieces of HTML."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanets.report import charts
from spanets.report.content import Content
from spanets.report.cost import describe_cost
from spanets.runs.comparing import describe_date
from spanets.runs.listing import Row, Run, flatten
from spanets.runs.record import hide_user
from spanets.training.report_parts import Example, Scatter, Table
from spanets.training.resuming import resume_command
from spanets_runtime.html import Page, html_table, to_html
from spanets_runtime.text import shorten

MOST_ROWS = 24
"""Largest number of rows of a table of results."""

MOST_NOTES, MOST_STARTS = 60, 12

LONGEST, CELL, CAPTION = 240, 80, 60
"""Largest number of characters of a value, of a name in a table, and of one below a picture."""

_NO_COMMANDS = "<p>None: there is no checkpoint.</p>"

FINISHED, BROKEN = "finished", "broken"


def head(content: Content) -> Iterator[str]:
    """Yields what the run is, and whether it is finished."""
    run, task = content.run, content.task
    words = [run.model, task.name if task else "", f"{run.epochs} epochs" if run.epochs else ""]
    if run.started:
        words.append(f"started {describe_date(run.started)}")
    yield _paragraph(", ".join(filter(None, words)), "quiet")
    if run.status not in (FINISHED, BROKEN):
        of = "" if run.of_epochs is None else f" of {run.of_epochs}"
        yield _paragraph(
            f"This run is not finished ({run.status}): {run.epochs}{of} epochs are trained. "
            "The numbers are those of the last validated epoch.",
            "notice",
        )
    if run.problem is not None:
        yield _paragraph(_short(run.problem), "notice")
    if "checkpoint" in content.problems:
        reason = content.problems["checkpoint"]
        yield _paragraph(f"Without pictures and frequencies: {_short(reason)}", "notice")


def metrics(content: Content) -> Iterator[str]:
    """Yields the metrics, that which selects the best epoch first."""
    results, run = content.results, content.run
    found: Mapping[str, Any] = results.get("metrics") or run.metrics
    score = results.get("score") or (content.task and content.task.score.removeprefix("val/"))
    names = sorted(found, key=lambda name: name != score)
    cards = [_card(name, found[name], _interval(content, name, found[name])) for name in names]
    yield f'<div class="cards">{"".join(cards)}</div>' if cards else "<p>None yet.</p>"
    if results:
        images, data = results.get("images", "?"), results.get("data", "?")
        yield _paragraph(f"On {images} images of {_short(str(data))}.", "quiet")
    if results.get("best_epoch") is not None:
        best = results["best_score"]
        yield _paragraph(f"Best epoch: {results['best_epoch']}, validation {score} {best:.4f}.")


def _card(name: str, value: Any, interval: str) -> str:
    shown = "–" if value is None else f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"
    small = f"<small>{interval}</small>" if interval else ""
    return f'<div class="card"><b>{shown}</b> {to_html(name.replace("_", " "))}{small}</div>'


def _interval(content: Content, name: str, value: Any) -> str:
    """Returns the interval of a share of independent images, or an empty text."""
    images = content.results.get("images")
    if content.task is None or name not in content.task.proportions or value is None or not images:
        return ""
    low, high = wilson(value, images)
    return f"95 % interval {low:.3f} to {high:.3f}, if the images are independent"


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share of `count` independent images (Wilson, 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def curves(content: Content) -> Iterator[str]:
    """Yields charts of the loss and of the validation metrics by epoch."""
    history = content.run.history
    if not history:
        yield "<p>None: no epoch is finished.</p>"
        return
    loss = {"training": _points(history, "train/loss"), "validation": _points(history, "val/loss")}
    shown = [charts.epoch_chart("Loss", {n: p for n, p in loss.items() if p})]
    keys = dict.fromkeys(key for row in history for key in row)
    others = [key for key in keys if key.startswith("val/") and key != "val/loss"]
    by_range: dict[bool, dict[str, charts.Points]] = {True: {}, False: {}}
    for key in others:
        points = _points(history, key)
        is_share = all(0 <= y <= 1 for _, y in points)
        by_range[is_share][key.removeprefix("val/").replace("_", " ")] = points
    for is_share, found in by_range.items():
        groups = _groups(list(found), charts.MOST_CURVES if is_share else 1)
        for i, names in enumerate(groups):
            title = f"{'More v' if i else 'V'}alidation metrics"
            title = title if is_share else f"Validation {names[0]}"
            shown.append(charts.epoch_chart(title, {n: found[n] for n in names}))
    yield f'<div class="charts">{"".join(shown)}</div>'


def _points(history: Sequence[Row], key: str) -> charts.Points:
    return [(row.get("epoch", i), row[key]) for i, row in enumerate(history, 1) if key in row]


def _groups(names: list[str], size: int) -> list[list[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)][:4]


def of_task(content: Content) -> Iterator[str]:
    """Yields the tables and plots that the task makes of its results."""
    if content.task is None or not content.results:
        return
    parts = content.task.report_results(content.results)
    for part in parts:
        if isinstance(part, Table):
            yield f"<h3>{to_html(part.title)}</h3>"
            yield from _table(part.header, part.rows, part.about)
    plots = [
        charts.scatter_chart(
            part.title, list(zip(part.true, part.predicted, strict=True)), "truth", "prediction"
        )
        for part in parts
        if isinstance(part, Scatter)
    ]
    if plots:
        yield f'<div class="charts">{"".join(plots)}</div>'


def _table(header: Sequence[str], rows: Sequence[Sequence[object]], about: str) -> Iterator[str]:
    if about:
        yield _paragraph(about, "quiet")
    yield html_table(header, [[_cell(cell) for cell in row] for row in rows[:MOST_ROWS]])
    if (more := len(rows) - MOST_ROWS) > 0:
        yield _paragraph(f"{more} more rows are left out; results.json has the numbers.", "quiet")


def _cell(value: object) -> object:
    return _short(value, CELL) if isinstance(value, str) else value


def images(content: Content, page: Page) -> Iterator[str]:
    """Yields the best and the worst images."""
    found = content.examples
    if "examples" in content.problems:
        yield _paragraph(f"No pictures: {_short(content.problems['examples'])}", "notice")
    if found is None:
        return
    yield _paragraph(found.about, "quiet")
    for title, chosen in (("The worst", found.worst), ("The best", found.best)):
        yield f"<h3>{title} ({len(chosen)})</h3>"
        yield from (_example(one, page) for one in chosen)


def _example(one: Example, page: Page) -> str:
    lines = [_line(*line) for line in one.lines]
    title, figures = _short(one.name), []
    for caption, picture in one.pictures.items():
        figures.append(page.figure(picture, [to_html(caption)] if caption else lines, title))
    if len(figures) == 1:
        return figures[0]
    return f'<div class="example">{"".join(figures)}<div>{"<br>".join(lines)}</div></div>'


def _line(kind: str, *parts: str) -> str:
    # Each part keeps to its own direction of writing.
    shown = " ".join(f"<bdi>{to_html(_short(part, CAPTION))}</bdi>" for part in parts)
    return f'<span class="{kind}">{shown}</span>' if kind else shown


def frequencies(content: Content) -> Iterator[str]:
    """Yields what the stages keep of the images."""
    task = content.task
    if task is not None and not task.is_image_level:
        reason = f"measured for models of whole images, and this one is for {task.name}"
        yield _paragraph(f"Not shown: {reason}.")
        return
    if "frequencies" in content.problems or not content.curves:
        yield _paragraph(f"Not shown: {_short(content.problems.get('frequencies', 'no maps'))}.")
        return
    yield _paragraph(
        "How much of each frequency the outputs of the stages hold, against the lowest one: a "
        "curve that falls less keeps more of the fine structure. Radial mean of the log amplitude, "
        f"over {content.measured} images; spanets analyze measures more.",
        "quiet",
    )
    label = "frequency, as a share of the stage's highest (Nyquist)"
    chart = charts.line_chart("Relative log amplitude", content.curves, label)
    rows = [(name, points[-1][1]) for name, points in content.curves.items()]
    table = html_table(("stage", "at the highest frequency"), rows)
    yield f'<div class="charts">{chart}<div>{table}</div></div>'


def cost(content: Content) -> Iterator[str]:
    """Yields what the model costs."""
    yield html_table(("", ""), describe_cost(content))


def commands(content: Content) -> Iterator[str]:
    """Yields the commands that come next, with the real paths."""
    found = next_commands(content)
    yield "".join(f"<pre>{to_html(command)}</pre>" for command in found) or _NO_COMMANDS


def next_commands(content: Content) -> list[str]:
    """Returns the commands that come next: resume, eval, predict, explain, export, push."""
    folder, checkpoint, task = content.run.folder, content.checkpoint, content.task
    found = [] if content.run.status in (FINISHED, BROKEN) else [resume_command(folder)]
    if checkpoint is None or task is None:
        return found
    path, options = shlex.quote(str(checkpoint)), task.supported_options
    inside = {name: shlex.quote(str(folder / name)) for name in ("errors", "model.onnx", "found")}
    errors = f" --errors {inside['errors']}" if "errors" in options else ""
    found.append(f"spanets eval {path}{errors}")
    out = f" --out {inside['found']}" if "out" in options else ""
    found.append(f"spanets predict {path} IMAGE...{out}")
    if task.is_image_level:
        explained = shlex.quote(str(folder / "explained"))
        found.append(f"spanets explain {path} IMAGE... --out {explained}")
    found.append(f"spanets export {path} --out {inside['model.onnx']}")
    if task.is_image_level:
        found.append(f"spanets push {path} --to FOLDER")
    return found


def notes(content: Content) -> Iterator[str]:
    """Yields what was left out, renamed or changed, as the run said it."""
    said = [note for start in content.starts for note in _texts(start.get("notes"))]
    said += [*_texts(content.results.get("notes")), *_texts(content.results.get("unreadable"))]
    lines = list(dict.fromkeys(said))
    items = "".join(f"<li>{to_html(_short(line, 2 * LONGEST))}</li>" for line in lines[:MOST_NOTES])
    yield f"<ul>{items}</ul>" if lines else "<p>None.</p>"
    if (more := len(lines) - MOST_NOTES) > 0:
        yield _paragraph(f"{more} more lines are left out; environment.json has all.", "quiet")


def _texts(value: Any) -> list[str]:
    return [str(line) for line in value] if isinstance(value, list) else []


def settings(content: Content) -> Iterator[str]:
    """Yields the keys of the recipe that differ from the defaults, and all of them, folded."""
    recipe, task = content.run.recipe, content.task
    defaults = {} if task is None else flatten(task.recipe_type().to_dict())
    if not recipe:
        yield "<p>The recipe cannot be read.</p>"
        return
    changed = [
        (key, _value(value), _value(defaults[key]) if key in defaults else "")
        for key, value in recipe.items()
        if defaults.get(key, None) != value
    ]
    yield _paragraph(f"{len(changed)} of {len(recipe)} keys differ from the defaults.", "quiet")
    yield html_table(("key", "value", "default"), changed)
    every = html_table(("key", "value"), [(key, _value(value)) for key, value in recipe.items()])
    yield f"<details><summary>All {len(recipe)} keys</summary>{every}</details>"


def _value(value: object) -> str:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    return _short(hide_user(str(shown)))


def environment(content: Content) -> Iterator[str]:
    """Yields versions and machine of the last start, and all starts."""
    if not content.starts:
        yield "<p>Not recorded.</p>"
        return
    last = content.starts[-1]
    flat = flatten({key: last.get(key) for key in ("versions", "machine", "git") if last.get(key)})
    yield html_table(("", ""), [(key, _value(value)) for key, value in flat.items()])
    rows = [
        [str(start.get(key) or "–") for key in ("started", "outcome", "command")]
        for start in content.starts[-MOST_STARTS:]
    ]
    left = len(content.starts) - len(rows)
    before = f" The {left} earlier ones are left out." if left else ""
    yield _paragraph(f"Starts of the run: {len(content.starts)}.{before}", "quiet")
    shown = [[_short(cell, 2 * LONGEST) for cell in row] for row in rows]
    yield html_table(("started", "outcome", "command"), shown)


def describe_name(run: Run) -> str:
    """Returns the title of the page."""
    return f"Run {_short(run.name)}"


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{to_html(text)}</p>' if kind else f"<p>{to_html(text)}</p>"


def _short(text: str, longest: int = LONGEST) -> str:
    return shorten(text, longest)
