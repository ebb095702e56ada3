"""The cells of a study: a run for each combination of levels and each seed."""

import copy
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from spanets.experiments.measuring import MEASURED, NOTHING, Measure
from spanets.experiments.study_file import Study
from spanets.recipe import Recipe, change_values, parse_recipe
from spanets.recipe.trust import check_places
from spanets.runs.claiming import is_running
from spanets.runs.file_names import RESULTS
from spanets.runs.record import FINISHED as DONE
from spanets.runs.record import STOPPED, read_starts
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.reading import read_text_file

CELLS = "cells"
FAILURE = "failure.json"

FINISHED, FAILED, RUNNING = "finished", "failed", "running"
INTERRUPTED, MISSING = "interrupted", "missing"
STATES = (FINISHED, FAILED, RUNNING, INTERRUPTED, MISSING)

_MOST_BYTES = 2**28


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        levels: The level of each factor.
        seed: The recipe's seed.
        folder: The run folder.
        recipe: What is run.
        measure: What is measured afterwards.
    """

    levels: Mapping[str, str]
    seed: int
    folder: Path
    recipe: Recipe
    measure: Measure = NOTHING

    def __str__(self) -> str:
        """Returns a name for messages."""
        return f"{name_levels(self.levels)}, seed {self.seed}"


@dataclass(frozen=True)
class State:
    """How far a cell is.

    Attributes:
        status: One of `STATES`.
        problem: Error of a failed cell, else None.
        results: Content of results.json of a finished cell, else {}.
    """

    status: str
    problem: str | None
    results: Mapping[str, Any]


def name_levels(levels: Mapping[str, str]) -> str:
    """Returns a combination of levels in words."""
    return ", ".join(f"{factor} {level}" for factor, level in levels.items())


def make_cells(
    study: Study, base: Mapping[str, Any], out: Path, trusted: bool = False
) -> list[Cell]:
    """Returns the cells of a study, all combinations of the first seed first.

    Args:
        study: The study.
        base: Values of its recipe by dotted key.
        out: The folder of the study.
        trusted: Whether recipe and study may set URLs and output folders.

    Raises:
        UsageError: a wrong key or value, two factors that set one key, two equal combinations, or
            settings that no cell can have.
    """
    _check_overlaps(study)
    recipes = [
        (levels, _make_recipe(study, base, levels, trusted)) for levels in study.combinations()
    ]
    for (first, one), (second, other) in combinations(recipes, 2):
        if one == other:
            raise UsageError(
                f"{study.origin}: {name_levels(first)} and {name_levels(second)} have the same "
                "recipe; they would be two names of one run"
            )
    return [
        Cell(
            levels, seed, _folder(out, levels, seed), _with_seed(recipe, seed, study), study.measure
        )
        for seed in study.seeds
        for levels, recipe in recipes
    ]


def _make_recipe(
    study: Study, base: Mapping[str, Any], levels: Mapping[str, str], trusted: bool
) -> Recipe:
    origin = f"{study.origin}: {name_levels(levels)}"
    values = change_values(base, study.set, f"{study.origin}: set")
    for factor, level in levels.items():
        where = f"{study.origin}: factors: {factor}: {level}"
        values = change_values(values, study.factors[factor][level], where)
    try:
        recipe = parse_recipe(values, origin=origin)
    except UsageError as error:
        message = str(error)
        raise UsageError(
            message if message.startswith(origin) else f"{origin}: {message}"
        ) from None
    if not trusted:
        check_places(recipe, origin)
    _check_devices(recipe, origin)
    if getattr(recipe.data, "fold", None) == "all":
        raise UsageError(f"{origin}: data.fold is 'all', must be one fold; make folds a factor")
    if study.split_by_seed and not hasattr(recipe.data, "split_seed"):
        raise UsageError(f"{origin}: split_by_seed is true, but {recipe.task} draws no split")
    return recipe


def _check_devices(recipe: Recipe, origin: str) -> None:
    """Lets each cell train on one device; more processes train more cells."""
    for key in ("devices", "num_nodes"):
        if getattr(recipe.trainer, key) not in (1, "auto"):
            raise UsageError(
                f"{origin}: trainer.{key} is {getattr(recipe.trainer, key)}, must be 1; start a "
                "process for each device on the same folder instead"
            )
    recipe.trainer.devices = 1


def _with_seed(recipe: Recipe, seed: int, study: Study) -> Recipe:
    own: Any = copy.deepcopy(recipe)
    own.seed = seed
    if study.split_by_seed:
        own.data.split_seed = seed
    return own


def _folder(out: Path, levels: Mapping[str, str], seed: int) -> Path:
    name = ",".join(f"{factor}={level}" for factor, level in levels.items())
    if len(os.fsencode(name)) > 255:
        raise UsageError(f"{name}: too long for a folder's name; shorten the names of the levels")
    return out / CELLS / name / f"seed-{seed}"


def _check_overlaps(study: Study) -> None:
    """Raises a UsageError if two factors set one key, of which only the last would count."""
    keys = {
        name: {key for level in levels.values() for key in change_values({}, level, study.origin)}
        for name, levels in study.factors.items()
    }
    for (first, one), (second, other) in combinations(keys.items(), 2):
        for a in sorted(one):
            for b in sorted(other):
                if a == b or a.startswith(f"{b}.") or b.startswith(f"{a}."):
                    raise UsageError(
                        f"{study.origin}: factors {first} and {second} both set {min(a, b)}; "
                        "one key belongs to one factor"
                    )


def read_state(cell: Cell, ours: bool = False) -> State:
    """Returns how far a cell is.

    Args:
        cell: The cell.
        ours: Whether this process has claimed its folder; otherwise it may be running.
    """
    if not ours and is_running(cell.folder):
        return State(RUNNING, None, {})
    outcome = _outcome(cell.folder)
    try:
        is_measured = not cell.measure.what or os.path.lexists(cell.folder / MEASURED)
        if os.path.lexists(cell.folder / FAILURE):
            failure = read_json(cell.folder / FAILURE)
            if not (is_measured and _is_mended(cell.folder, failure)):
                return State(FAILED, str(failure.get("message")), {})
        if outcome.startswith("failed: "):
            return State(FAILED, outcome.removeprefix("failed: "), {})
        if is_trained(cell.folder):
            results = read_results(cell.folder)
            return State(FINISHED if is_measured else INTERRUPTED, None, results)
    except UserError as error:
        return State(FAILED, str(error), {})
    return State(INTERRUPTED if read_starts(cell.folder) else MISSING, None, {})


def _is_mended(folder: Path, failure: Mapping[str, Any]) -> bool:
    """Returns whether a run was finished by hand after its failure.

    A failure after the training, such as that of a measurement, is not in the run's own outcome.
    """
    earlier = failure.get("starts")
    is_later = not isinstance(earlier, int) or len(read_starts(folder)) > earlier
    return _outcome(folder) == DONE and is_later


def is_trained(folder: Path) -> bool:
    """Returns whether a run has ended with results."""
    return os.path.lexists(folder / RESULTS) and _outcome(folder) != STOPPED


def _outcome(folder: Path) -> str:
    """Returns how the last start of a run ended; "" if there is none or it goes on."""
    starts = read_starts(folder)
    return str(starts[-1].get("outcome") or "") if starts else ""


def read_results(folder: Path) -> dict[str, Any]:
    """Returns the results of a run, with the numbers that were measured of it among its metrics.

    Raises:
        UserError: a file is damaged.
    """
    results = read_json(folder / RESULTS)
    if os.path.lexists(folder / MEASURED):
        results["metrics"] = {**results.get("metrics", {}), **read_json(folder / MEASURED)}
    return results


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON object from a file; raises UserError if it is damaged."""
    try:
        values = json.loads(read_text_file(path, _MOST_BYTES))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged")
    return values


def find_value(results: Mapping[str, Any], name: str) -> float | None:
    """Returns a metric of results.json, or the number at a dotted path; None if it is undefined.

    Raises:
        KeyError: there is none of this name.
    """
    metrics = results.get("metrics", {})
    value: Any = metrics if name in metrics else results
    for key in [name] if name in metrics else name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise KeyError(name)
        value = value[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not is_number:
        raise KeyError(name)
    return float(value) if value is not None and math.isfinite(value) else None


def has_value(results: Mapping[str, Any], name: str) -> bool:
    """Returns whether results.json has a number of this name; it may be undefined."""
    try:
        find_value(results, name)
    except KeyError:
        return False
    return True
