"""Collects the cells of a study, and writes results.json and table.csv."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from spanets.experiments.cells import (
    FINISHED,
    Cell,
    find_value,
    name_levels,
    read_json,
    read_state,
)
from spanets.experiments.folder import RESULTS, TABLE, read_history
from spanets.experiments.planning import duration, wall_seconds
from spanets.experiments.running import COST
from spanets.experiments.study_file import Study
from spanets.experiments.summary import summarise_study
from spanets.runs.file_names import SPLIT
from spanets.runs.record import read_starts
from spanets.training.resuming import FREE_ON_RESUME
from spanets.version import __version__
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically


def collect(study: Study, cells: Sequence[Cell], out: Path) -> dict[str, Any]:
    """Returns the content of results.json: design, raw values, means, verdicts and notes.

    Raises:
        UserError: a finished cell has no metric of the study's name.
    """
    design = study.design()
    rows = [_read_cell(cell, study, out) for cell in cells]
    history = read_history(out)
    found = summarise_study(design, rows)
    # Who adds seeds after a look at the results stops when they please.
    found["notes"] += [
        f"{line.get('when')}: {line.get('what')}" for line in history if line.get("what") != "begun"
    ]
    return {
        "question": study.question,
        "recipe": study.recipe,
        **design,
        "history": history,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        **found,
        "cells": rows,
    }


def _read_cell(cell: Cell, study: Study, out: Path) -> dict[str, Any]:
    state = read_state(cell)
    results, is_finished = state.results, state.status == FINISHED
    return {
        "levels": dict(cell.levels),
        "seed": cell.seed,
        "status": state.status,
        "value": check_value(cell, results, study.metric.name) if is_finished else None,
        **_read_others(cell, results, study, is_finished),
        "problem": state.problem,
        "folder": cell.folder.relative_to(out).as_posix(),
        "metrics": results.get("metrics"),
        "images": results.get("images"),
        "train_seconds": results.get("train_seconds"),
        "wall_seconds": wall_seconds(cell),
        "parameters": results.get("parameters"),
        "macs": _read_macs(cell.folder / COST) if is_finished else None,
        "environment": _read_environment(cell.folder) if is_finished else None,
        "data": _digest_data(cell) if is_finished else None,
        "split": _digest(cell.folder / SPLIT) if is_finished else None,
    }


def _read_others(
    cell: Cell, results: Mapping[str, Any], study: Study, is_finished: bool
) -> dict[str, Any]:
    """Returns "values", those of the metrics that rules name for themselves, if any does."""
    names = dict.fromkeys(rule.metric.name for rule in study.rules if rule.metric)
    if not names:
        return {}
    return {
        "values": {name: check_value(cell, results, name) if is_finished else None
                   for name in names}
    }  # fmt: skip


def check_value(cell: Cell, results: Mapping[str, Any], name: str) -> float | None:
    """Returns the metric of a finished cell; None if it is undefined.

    Raises:
        UserError: there is none of this name; the message lists those that there are.
    """
    try:
        return find_value(results, name)
    except KeyError:
        known = ", ".join(results.get("metrics", {}))
        raise UserError(
            f"{cell.folder}: results.json has no metric {name}, it has {known}; correct "
            "metric.name in the study, which is allowed while no cell has the metric"
        ) from None


def _read_macs(path: Path) -> int | None:
    try:
        macs = read_json(path).get("macs")
    except UserError:  # trained by hand
        return None
    return macs if isinstance(macs, int) else None


def _read_environment(folder: Path) -> dict[str, Any]:
    """Returns versions, hardware and commit of the last start of a run."""
    starts = read_starts(folder)
    try:
        last = starts[-1]
        git = last["git"] or {}
        machine = {key: last["machine"][key] for key in ("processor", "gpus")}
        return {**last["versions"], **machine, "commit": git.get("commit")}
    except (LookupError, TypeError):
        return {}


def _digest_data(cell: Cell) -> str:
    """Returns a digest of the keys on which the images of a cell depend."""
    data = cell.recipe.to_dict()["data"]
    kept = {key: value for key, value in data.items() if f"data.{key}" not in FREE_ON_RESUME}
    return hashlib.sha256(json.dumps([kept, data.get("root")]).encode()).hexdigest()[:16]


def _digest(path: Path) -> str | None:
    if not os.path.isfile(path):
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_results(results: Mapping[str, Any], out: Path) -> None:
    """Writes results.json, and table.csv with a row for each combination."""
    text = json.dumps(results, indent=2) + "\n"
    write_atomically(out / RESULTS, lambda file: file.write(text.encode()))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    factors = list(results["factors"])
    numbers = ("n", "mean", "deviation", "low", "high")
    costs = ("train_seconds", "parameters", "macs")
    named = [f"difference_{name}" for name in numbers]
    writer.writerow([*factors, *numbers, "t_low", "t_high", *named, *costs])
    for row in results["combinations"]:
        difference = row["difference"] or {}
        writer.writerow(
            [
                *(row["levels"][factor] for factor in factors),
                *(row[name] for name in (*numbers, "t_low", "t_high")),
                *(difference.get(name) for name in numbers),
                *(row[name] for name in costs),
            ]
        )
    write_atomically(out / TABLE, lambda file: file.write(buffer.getvalue().encode()))


# ---- tables for people


def table_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and a row for each combination of levels."""
    header = [
        *(*results["factors"], "n", results["metric"]["name"], "95 % interval"),
        *("difference", "95 % interval", "training", "parameters (M)", "MACs (G)"),
    ]
    rows = []
    for row in results["combinations"]:
        difference = row["difference"]
        rows.append(
            [
                *row["levels"].values(),
                str(row["n"]),
                _number(row["mean"]),
                _interval(row),
                "baseline" if difference is None else _number(difference["mean"], "+"),
                "" if difference is None else _interval(difference, "+"),
                "-" if row["train_seconds"] is None else duration(row["train_seconds"]),
                "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f}",
                "-" if row["macs"] is None else f"{row['macs'] / 1e9:.3f}",
            ]
        )
    return header, rows


def further_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """Returns a table with the means of metrics that only rules name; None if there are none."""
    names = list(dict.fromkeys(r["metric"]["name"] for r in results["rules"] if "metric" in r))
    if not names:
        return None
    rows = []
    for row in results["combinations"]:
        cells = [cell for cell in results["cells"] if cell["levels"] == row["levels"]]
        known = [[cell.get("values", {}).get(name) for cell in cells] for name in names]
        numbers = [[value for value in values if value is not None] for values in known]
        means = [_number(fmean(values) if values else None) for values in numbers]
        rows.append([*row["levels"].values(), *means])
    return [*results["factors"], *(f"mean {name}" for name in names)], rows


def describe_verdicts(results: Mapping[str, Any]) -> list[str]:
    """Returns a line for each verdict: the claim, what is compared, and the reason."""
    lines = []
    for found in results["verdicts"]:
        levels, against = found["levels"], found["against"]
        named = [factor for factor in levels if levels[factor] != against[factor]]
        rest = {factor: level for factor, level in levels.items() if factor not in named}
        at = f" at {name_levels(rest)}" if rest else ""
        pair = " against ".join(
            name_levels({factor: side[factor] for factor in named}) for side in (levels, against)
        )
        lines.append(
            f"{found['verdict']}: {found['rule']} ({pair}{at}: {found['claim']}): {found['reason']}"
        )
    return lines


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.4f}" if abs(value) < 1000 else f"{value:{sign}.6g}"


def _interval(row: Mapping[str, Any], sign: str = "") -> str:
    if row["low"] is None:
        return "-"
    return f"{_number(row['low'], sign)} to {_number(row['high'], sign)}"
