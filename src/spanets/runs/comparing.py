"""Compares runs: a table, the differences of their recipes, and their learning curves."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from spanets.runs.listing import Run
from spanets_runtime.figures import check_picture, name_label, render
from spanets_runtime.files import write_atomically

# With more lines than this, a legend would hide the curves.
MAX_NAMED = 20

HEADER = ("run", "status", "model", "epochs", "time", "started")


def table_rows(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and a row for each run, with the metrics of all runs except the loss."""
    metrics = [name for name in _metrics(runs) if name != "loss"]
    rows = [
        [
            run.name,
            run.status,
            run.model,
            f"{run.epochs}/{'?' if run.of_epochs is None else run.of_epochs}",
            "" if run.seconds is None else str(timedelta(seconds=round(run.seconds))),
            describe_date(run.started),
            *(_number(run.metrics.get(name)) for name in metrics),
        ]
        for run in runs
    ]
    return [*HEADER, *metrics], rows


def find_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Returns the recipe keys that differ, with the value of each run; None if a run lacks it."""
    keys = dict.fromkeys(key for run in runs for key in run.recipe)
    values = {key: [run.recipe.get(key) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def comparison_rows(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and rows for status, epochs, each difference and each metric."""
    rows = [
        ["status", *(run.status for run in runs)],
        ["epochs", *(str(run.epochs) for run in runs)],
        *([key, *map(str, values)] for key, values in find_differences(runs).items()),
        *([name, *(_number(run.metrics.get(name)) for run in runs)] for name in _metrics(runs)),
    ]
    return ["", *(run.name for run in runs)], rows


def plot_runs(runs: Sequence[Run], path: str | Path) -> None:
    """Plots training loss, validation loss and the most common validation metric by epoch.

    Args:
        runs: The runs; those without epochs are left out.
        path: FILE.png, .svg or .pdf.

    Raises:
        UsageError: another suffix.
        UserError: matplotlib is missing, or the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = ["train/loss", "val/loss", _chief_metric(runs)]
    for axes, key in zip(figure.subplots(1, 3), panels, strict=True):
        for run in runs:
            points = [(row["epoch"], row[key]) for row in run.history if {"epoch", key} <= set(row)]
            mark = "." if len(points) < 50 else ""
            if points:
                axes.plot(*zip(*points, strict=True), marker=mark, label=name_label(run.name))
        axes.set(xlabel="epoch", ylabel=key)
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if 0 < len(labels) <= MAX_NAMED:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    content = render(figure, Path(path).suffix[1:], dpi=130)
    write_atomically(path, lambda file: file.write(content))


def _chief_metric(runs: Sequence[Run]) -> str:
    """Returns the most common validation metric of the runs, except the loss."""
    of_runs = (dict.fromkeys(key for row in run.history for key in row) for run in runs)
    names = [name for of_run in of_runs for name in of_run]
    metrics = [name for name in names if name.startswith("val/") and name != "val/loss"]
    return max(metrics, key=metrics.count, default="val/accuracy")


def _metrics(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.metrics))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def describe_date(started: str | None) -> str:
    """Formats a start time to the minute, in local time."""
    try:
        return datetime.fromisoformat(started or "").astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""
