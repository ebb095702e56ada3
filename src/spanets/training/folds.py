"""Trains a recipe on every fold of a data set, one after another: a cross-validation.

runs/NAME/
  folds.yaml    the recipe, with data.fold all
  folds.csv     the fold of each image
  fold-0/, ...  the run folder of each fold
  folds.json    the metrics of each fold, with mean and 95 % interval
  errors/       pages about all images, each answered by the fold that was not trained on it
"""

import copy
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spanets.data.folds import Folds, read_folds, write_folds
from spanets.recipe import Recipe, load_recipe
from spanets.recipe.yaml_text import dump_yaml
from spanets.runs.file_names import FOLD_LIST, FOLD_RECIPE, FOLD_RESULTS, RESULTS
from spanets.runs.record import read_starts
from spanets.tasks import load_task
from spanets.training.devices import count_processes, fit_to_machine
from spanets.training.engine import train_claimed
from spanets.training.options import EvalOptions
from spanets.training.resuming import check_same, resume_command, start_anew
from spanets.training.run_folder import claim
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.student import student_quantile

ERRORS = "errors"
"""The folder of the pages about all images, in the folder of all runs."""


def train_folds(recipe: Recipe, out: Path, resume: bool = False) -> dict[str, Any]:
    """Trains a recipe with `data.fold all`, in a folder that the caller has locked.

    Args:
        recipe: The recipe.
        out: The folder of all runs.
        resume: Go on with a cross-validation that stopped; finished folds are not repeated.

    Returns:
        The contents of folds.json.

    Raises:
        UsageError: several devices, the folder already holds runs, or another recipe resumes.
        UserError: see `train`; the message names the fold.
    """
    if count_processes(fit_to_machine(recipe)[0]) > 1:
        raise UsageError(
            "data.fold all trains on one device: add --trainer.devices 1, or start a run for each "
            "fold, such as --data.fold 0"
        )
    folds = _resume(recipe, out) if resume else _begin(recipe, out)
    results, choices = {}, folds.choices()
    for place, fold in enumerate(choices, start=1):
        folder = out / f"fold-{fold}"
        if (done := _read_results(folder)) is None:
            print(f"fold {fold} ({place} of {len(choices)}): {folder}", file=sys.stderr)
            done = _train(recipe, out, folder, fold, folds)
        else:
            print(f"fold {fold} ({place} of {len(choices)}): finished", file=sys.stderr)
        results[fold] = done
    summary = summarise_folds(results)
    _write_summary(summary, out)  # keep the numbers if what follows fails
    options = EvalOptions(
        workers=recipe.data.workers, batch_size=recipe.optim.batch_size, trusted=True
    )
    joined = evaluate_folds(out, replace(options, errors=out / ERRORS))
    if joined is not None:
        summary["out_of_fold"] = joined
        _write_summary(summary, out)
    return summary


def _write_summary(summary: Mapping[str, Any], out: Path) -> None:
    text = json.dumps(summary, indent=2) + "\n"
    write_atomically(out / FOLD_RESULTS, lambda file: file.write(text.encode()))


def evaluate_folds(folder: Path, options: EvalOptions) -> dict[str, Any] | None:
    """Evaluates a finished cross-validation; see `Task.evaluate_folds`.

    Raises:
        UserError: a fold is not finished, or see `Task.evaluate_folds`.
    """
    recipe, folds = load_recipe(str(folder / FOLD_RECIPE), trusted=True), read_folds(folder)
    checkpoints = {}
    for fold in [] if folds is None else folds.choices():
        own = folder / f"fold-{fold}"
        results = _read_results(own)
        if results is None:
            raise UserError(f"{own}: is not finished; finish it with: {_resume_command(folder)}")
        checkpoints[fold] = own / Path(str(results["checkpoint"])).name
    if not checkpoints:
        raise UserError(f"{folder}: {FOLD_LIST} is missing or lists no fold")
    return load_task(recipe.task).evaluate_folds(folder, checkpoints, options)


def _begin(recipe: Recipe, out: Path) -> Folds:
    """Draws the folds, and writes recipe and folds."""
    if (out / FOLD_RECIPE).exists():
        raise UsageError(f"{out}: already holds folds; add --resume or choose another --out")
    start_anew(out, recipe)  # refuses a folder with other files
    folds = load_task(recipe.task)(recipe).draw_folds()
    write_folds(out, folds)
    text = dump_yaml(recipe.to_dict())
    write_atomically(out / FOLD_RECIPE, lambda file: file.write(text.encode()))
    return folds


def _resume(recipe: Recipe, out: Path) -> Folds:
    path, folds = out / FOLD_RECIPE, read_folds(out)
    if folds is None or not path.exists():
        raise UsageError(
            f"{out}: no folds to resume ({FOLD_LIST} or {FOLD_RECIPE} is missing); omit --resume "
            "to start them"
        )
    check_same(load_recipe(str(path), trusted=True), recipe, path, _resume_command(out))
    return folds


def _resume_command(out: Path) -> str:
    return resume_command(out, FOLD_RECIPE)


def _train(recipe: Recipe, out: Path, folder: Path, fold: int, folds: Folds) -> dict[str, Any]:
    """Trains a fold, or goes on with it if it has begun."""
    own: Any = copy.deepcopy(recipe)
    own.data.fold = fold
    try:
        with claim(folder):
            split = folds.split_list(fold, out / FOLD_LIST)
            return train_claimed(own, folder, bool(read_starts(folder)), split)
    except UserError as error:
        command = _resume_command(out)
        raise type(error)(
            f"fold {fold}: {error}; for this and the other folds: {command}"
        ) from error


def _read_results(folder: Path) -> dict[str, Any] | None:
    """Returns the results of a finished fold, or None."""
    try:
        results = json.loads((folder / RESULTS).read_text("utf-8"))
        return {**results, "metrics": dict(results["metrics"]), "checkpoint": results["checkpoint"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def summarise_folds(results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the metrics of each fold, and their means with 95 % intervals.

    A metric that is undefined in some folds is summarised over the others, whose number is given.

    Args:
        results: The contents of results.json by fold.
    """
    names = dict.fromkeys(name for result in results.values() for name in result["metrics"])
    kept = ("data", "images", "metrics", "checkpoint", "best_epoch", "best_score")
    return {
        "metrics": {
            name: summarise([result["metrics"].get(name) for result in results.values()])
            for name in names
        },
        "folds": {
            str(fold): {key: result.get(key) for key in kept} for fold, result in results.items()
        },
    }


def summarise(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Returns mean, standard deviation, 95 % interval of the mean by Student's t, and number."""
    found = [value for value in values if value is not None]
    if len(found) < 2:
        only = found[0] if found else None
        return {"mean": only, "deviation": None, "low": None, "high": None, "folds": len(found)}
    centre, deviation = mean(found), stdev(found)
    half = student_quantile(0.975, len(found) - 1) * deviation / math.sqrt(len(found))
    return {
        "mean": centre,
        "deviation": deviation,
        "low": centre - half,
        "high": centre + half,
        "folds": len(found),
    }


def describe_folds(results: Mapping[str, Any]) -> list[list[str]]:
    """Returns the metrics as rows of a table: name, mean, interval, lowest, highest, folds."""
    rows = []
    for name, found in results["metrics"].items():
        values = [fold["metrics"].get(name) for fold in results["folds"].values()]
        known = [value for value in values if value is not None]
        numbers = [found["mean"], min(known, default=None), max(known, default=None)]
        average, lowest, highest = ("-" if n is None else f"{n:.4f}" for n in numbers)
        interval = "-" if found["low"] is None else f"{found['low']:.4f} to {found['high']:.4f}"
        rows.append([name, average, interval, lowest, highest, str(found["folds"])])
    return rows
