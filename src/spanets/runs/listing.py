"""Reads and sorts run folders, including unfinished and damaged ones."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spanets.recipe import parse_recipe
from spanets.recipe.yaml_text import load_yaml
from spanets.runs.claiming import is_running
from spanets.runs.file_names import FOLD_RECIPE, HISTORY, LAST, RECIPE, RECORD, RESULTS
from spanets.runs.record import STOPPED, read_starts
from spanets_runtime.errors import UsageError, UserError, nearest
from spanets_runtime.reading import read_text_file

Row = dict[str, float]

MOST_BYTES = 2**28
"""Limit of a file's size; the results of ten thousand classes are that large."""

COLUMNS = ("name", "status", "model", "epochs", "seconds", "started")
"""Sort keys of runs, besides their metrics."""


@dataclass(frozen=True)
class Run:
    """The content of a run folder.

    Attributes:
        folder: Path of the run folder.
        name: Path relative to the searched folder.
        status: "finished", "running", "interrupted" (stopped or killed, can be resumed), "failed"
            (with an error) or "broken" (its files cannot be read).
        problem: Error of a failed or broken run, else None.
        recipe: Recipe values by dotted key; {} for a broken run.
        epochs: Number of finished epochs.
        of_epochs: Number of epochs in the recipe, or None.
        metrics: Metrics in results.json, or of the last validated epoch.
        history: One row an epoch.
        seconds: Training time in seconds, or None.
        started: Time of the first start in ISO form, or None.
    """

    folder: Path
    name: str
    status: str
    problem: str | None
    recipe: dict[str, Any]
    epochs: int
    of_epochs: int | None
    metrics: dict[str, float]
    history: list[Row]
    seconds: float | None
    started: str | None

    @property
    def model(self) -> str:
        """Returns the model's name, or an empty string."""
        return str(self.recipe.get("model.name", ""))

    def to_dict(self) -> dict[str, Any]:
        """Returns the run as values for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def is_run(folder: Path) -> bool:
    """Returns whether a folder is a run folder, even if its recipe is missing or unreadable."""
    return any(
        all(os.path.lexists(folder / name) for name in names)
        for names in ([RECIPE], [RECORD, HISTORY], [RECORD, LAST])
    )


def is_cross_validation(folder: Path) -> bool:
    """Returns whether a folder holds the runs of `data.fold all`."""
    return (folder / FOLD_RECIPE).is_file()


def find_runs(root: str | Path) -> list[Run]:
    """Reads the runs in a folder, at any depth, sorted by name; the folder itself may be a run.

    A run or folder that cannot be read becomes a row with status "broken".

    Raises:
        UserError: the folder does not exist or holds no runs.
    """
    root = Path(root)
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such folder")
    found: list[Path] = []
    for parent, folders, _ in os.walk(root, onerror=lambda error: found.append(error.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if is_run(Path(parent)):
            folders.clear()
            found.append(Path(parent))
    if not found:
        raise UserError(f"{root}: no runs in it; `spanets train` writes them, each with {RECIPE}")
    return [read_run(folder, root) for folder in sorted(map(Path, found))]


def choose_runs(words: Sequence[str]) -> list[Run]:
    """Reads the runs that a command line names.

    Args:
        words: Run folders; or one folder of runs, perhaps followed by names of runs in it.

    Raises:
        UserError: no such folder or run; the message suggests the nearest name.
    """
    first = Path(words[0]) if words else Path("runs")
    if len(words) < 2:
        return find_runs(first)
    if is_run(first):
        return [run for word in words for run in find_runs(word)]
    known = {run.name: run for run in find_runs(first)}
    chosen = []
    for word in words[1:]:
        if word not in known and not is_run(Path(word)):
            hint = nearest(word, known) or f"; it has {', '.join(list(known)[:20])}"
            raise UserError(f"{first}: no run {word!r}{hint}")
        chosen.append(known.get(word) or read_run(Path(word), Path(word)))
    return chosen


def sort_runs(runs: Sequence[Run], key: str) -> list[Run]:
    """Sorts runs by a metric, largest first, or by one of `COLUMNS`; runs without it come last.

    A metric that is NaN counts as missing.

    Raises:
        UsageError: no run has this metric.
    """
    metrics = dict.fromkeys(name for run in runs for name in run.metrics)
    if key in metrics:
        return sorted(runs, key=lambda run: _descending(run.metrics.get(key)))
    if key not in COLUMNS:
        known = [*COLUMNS, *metrics]
        raise UsageError(f"--sort {key}: allowed: {', '.join(known)}{nearest(key, known)}")

    def place(run: Run) -> tuple[bool, Any]:
        value = getattr(run, key)
        return value is None, value if value is not None else 0

    return sorted(runs, key=place)


def _descending(value: float | None) -> tuple[bool, float]:
    """Returns a sort key: larger numbers first, then missing ones and NaN."""
    is_missing = value is None or math.isnan(value)
    return is_missing, 0.0 if value is None or is_missing else -value


def read_run(folder: Path, root: Path) -> Run:
    """Reads a run folder; errors show in its status and problem."""
    name = str(folder.relative_to(root)) if folder != root else folder.resolve().name
    starts = read_starts(folder)
    problem, recipe, history, results = None, {}, [], None
    try:
        recipe = _read_recipe(folder / RECIPE)
        history = _read_history(folder / HISTORY)
        results = _read_results(folder / RESULTS)
    except UserError as error:
        problem = str(error)
    outcome = str(starts[-1].get("outcome") or "") if starts else ""
    status = _status(folder, problem, outcome, results is not None)
    if status == "failed":
        problem = outcome.removeprefix("failed: ")
    asked = recipe.get("trainer.epochs")
    return Run(
        folder=folder,
        name=name,
        status=status,
        problem=problem,
        recipe=recipe,
        epochs=len(history),
        of_epochs=None if asked is None else asked + recipe.get("optim.cooldown_epochs", 0),
        metrics=results or _last_validated(history),
        history=history,
        seconds=_seconds(history),
        started=_text_or_none(starts[0].get("started")) if starts else None,
    )


def _status(folder: Path, problem: str | None, outcome: str, has_results: bool) -> str:
    if is_running(folder):
        return "running"
    if problem is not None:
        return "broken"
    if outcome.startswith("failed"):
        return "failed"
    # The results may be those of an earlier start, if a later one was stopped.
    return "finished" if has_results and outcome != STOPPED else "interrupted"


def _seconds(history: list[Row]) -> float | None:
    """Returns the training time, if it is plausible."""
    seconds = history[-1].get("seconds") if history else None
    return seconds if seconds is not None and 0 <= seconds < 1e10 else None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _read(path: Path) -> str:
    """Returns the text of a run's file.

    Raises:
        UserError: it cannot be read; the message has the file's name without the folder.
    """
    try:
        return read_text_file(path, MOST_BYTES)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name, 1)) from None


def _read_recipe(path: Path) -> dict[str, Any]:
    values = load_yaml(_read(path), path.name)
    if not isinstance(values, Mapping):
        raise UserError(f"{path.name}: holds no keys")
    return flatten(parse_recipe(values, origin=path.name).to_dict())


def _read_history(path: Path) -> list[Row]:
    if not os.path.lexists(path):
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(_read(path), newline="")))
        return [{name: float(cell) for name, cell in row.items() if cell != ""} for row in rows]
    except (ValueError, TypeError, csv.Error):
        raise UserError(f"{path.name}: damaged") from None


def _read_results(path: Path) -> dict[str, float] | None:
    """Returns the metrics of a finished run."""
    results = read_results(path)
    if results is None:
        return None
    try:
        metrics = results["metrics"]
        return {str(name): float(value) for name, value in metrics.items() if value is not None}
    # OverflowError: a number is too large.
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        raise UserError(f"{path.name}: damaged") from None


def read_results(path: Path) -> dict[str, Any] | None:
    """Returns the contents of a results.json, or None if there is none.

    Raises:
        UserError: it is damaged.
    """
    if not os.path.lexists(path):
        return None
    try:
        results = json.loads(_read(path))
    except (ValueError, RecursionError):  # RecursionError: brackets are nested too deep
        results = None
    if not isinstance(results, dict) or not isinstance(results.get("metrics"), dict):
        raise UserError(f"{path.name}: damaged")
    return results


def _last_validated(history: list[Row]) -> dict[str, float]:
    for row in reversed(history):
        metrics = {
            name.removeprefix("val/"): value
            for name, value in row.items()
            if name.startswith("val/") and math.isfinite(value)
        }
        if metrics:
            return metrics
    return {}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested sections to dotted keys; an empty section stays {}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {}
        flat |= inner or {f"{prefix}{key}": value}
    return flat
