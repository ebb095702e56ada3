"""How much of a study is left: its cells by status, and the hours that they take."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import fmean
from typing import Any

from spanets.experiments.cells import FAILED, FINISHED, STATES, Cell, read_state
from spanets.runs.record import read_starts


def wall_seconds(cell: Cell) -> float | None:
    """Returns how long the starts of a cell lasted together; None if that is not recorded."""
    total = 0.0
    starts = read_starts(cell.folder)
    for start in starts:
        try:
            ended, begun = (datetime.fromisoformat(start[key]) for key in ("ended", "started"))
            total += (ended - begun).total_seconds()
        except (LookupError, TypeError, ValueError):  # killed: its end is unknown
            continue
    return total if starts else None


def plan(cells: Sequence[Cell], retry: bool = False) -> dict[str, Any]:
    """Returns the number of cells by status, and an estimate of what is left.

    A cell lasts as long as finished cells of its combination, or else as all finished cells do.

    Args:
        cells: The cells.
        retry: Whether failed cells are tried again.

    Returns:
        "counts" by status; "left", the number of cells to train; "hours" on one process, or None
        if no cell has finished; "guessed", how many of them have no finished cell of their
        combination; "cells", each with "cell" (its name), "status" and "problem".
    """
    states = [read_state(cell) for cell in cells]
    counts = Counter(state.status for state in states)
    left = [
        cell
        for cell, state in zip(cells, states, strict=True)
        if state.status != FINISHED and (retry or state.status != FAILED)
    ]
    known: dict[str, list[float]] = {}
    for cell, state in zip(cells, states, strict=True):
        seconds = wall_seconds(cell)
        if state.status == FINISHED and seconds is not None:
            known.setdefault(str(cell.levels), []).append(seconds)
    everything = [seconds for of_one in known.values() for seconds in of_one]
    hours = None
    if everything:
        hours = sum(fmean(known.get(str(cell.levels), everything)) for cell in left) / 3600
    return {
        "counts": {status: counts[status] for status in STATES},
        "left": len(left),
        "hours": hours,
        "guessed": sum(str(cell.levels) not in known for cell in left) if everything else 0,
        "cells": [
            {
                "cell": str(cell),
                "status": state.status,
                "problem": state.problem,
            }
            for cell, state in zip(cells, states, strict=True)
        ],
    }


def describe_hours(found: Mapping[str, Any]) -> str:
    """Returns a line about the hours of a plan; see `plan`."""
    if not found["left"]:
        failed = " but failed cells, with --retry" if found["counts"][FAILED] else ""
        return f"nothing is left to train{failed}"
    if found["hours"] is None:
        return (
            "time: unknown, because no cell of this study has finished; train the first cell "
            "(omit --dry-run, press Ctrl-C after it), then ask again"
        )
    guessed = ""
    if found["guessed"]:
        guessed = f"; {found['guessed']} of them by cells of other combinations"
    return (
        f"time: {duration(found['hours'] * 3600)} for {found['left']} cells, in one process on "
        f"hardware like that of the finished cells{guessed}"
    )


def duration(seconds: float) -> str:
    """Returns a duration in hours, minutes or seconds."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
