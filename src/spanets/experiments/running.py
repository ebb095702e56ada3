"""Trains the cells of a study that are missing; several processes may share a folder.

A process claims a cell by the lock of its run folder, which ends with the process. A cell that
another process trains is left to it.
"""

import gc
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from spanets.bench.costs import count_macs
from spanets.experiments.cells import (
    FAILED,
    FAILURE,
    FINISHED,
    RUNNING,
    Cell,
    is_trained,
    read_state,
)
from spanets.experiments.measuring import measure_cell
from spanets.runs.claiming import FolderInUseError, claimed
from spanets.runs.record import read_starts, was_stopped
from spanets.sources import open_checkpoint
from spanets.tasks import load_task
from spanets.training.engine import train_claimed
from spanets_runtime.errors import UserError, first_line
from spanets_runtime.files import try_lock, write_atomically

COST = "cost.json"
"""File in a run folder with what a cell costs besides its time."""

_PAUSE = 5.0
"""Seconds between two looks at cells that other processes train."""

Report = Callable[[str], None]
"""Function that shows a line to the user."""


def run_cells(
    cells: Sequence[Cell],
    report: Report,
    after: Callable[[Cell], object],
    retry: bool = False,
    wait: bool = False,
) -> None:
    """Trains or resumes every cell that is neither finished, failed nor claimed.

    Args:
        cells: The cells.
        report: Shows a line before and after each cell.
        after: Called when a cell has finished or failed.
        retry: Whether to try failed cells again, once.
        wait: Whether to wait for cells that other processes train, and to take over those whose
            process ended early.

    Raises:
        UserError: the user or a signal stopped it, or `after` raises it.
    """
    tried: set[Path] = set()
    while True:
        before = len(tried)
        elsewhere = 0
        for place, cell in enumerate(cells, start=1):
            if _is_over(cell, tried, retry):
                continue
            try:
                with claimed(cell.folder):
                    if _is_over(cell, tried, retry, ours=True):  # another process was faster
                        continue
                    tried.add(cell.folder)
                    report(f"cell {place} of {len(cells)}: {cell}: {cell.folder}")
                    _train(cell, report)
            except FolderInUseError:
                elsewhere += 1
                continue
            after(cell)
        if not elsewhere or (len(tried) == before and not wait):
            return
        if len(tried) == before:
            time.sleep(_PAUSE)


def _is_over(cell: Cell, tried: set[Path], retry: bool, ours: bool = False) -> bool:
    status = read_state(cell, ours).status
    if status == FAILED:
        return not retry or cell.folder in tried
    return status == FINISHED or (status != RUNNING and cell.folder in tried)


def _train(cell: Cell, report: Report) -> None:
    """Trains a cell; an error is recorded in its folder, unless the user stopped it."""
    (cell.folder / FAILURE).unlink(missing_ok=True)
    try:
        if not is_trained(cell.folder):
            train_claimed(cell.recipe, cell.folder, resume=bool(read_starts(cell.folder)))
        _write_cost(cell)
        if cell.measure.what:
            measure_cell(cell.folder, cell.recipe, cell.measure)
    except Exception as error:  # also a bug must not end the other cells
        if was_stopped(error):
            # The run's own message would advise to go on with this cell only.
            stopped: type[Exception] = type(error) if isinstance(error, UserError) else UserError
            raise stopped(f"stopped in {cell}; go on with the same command") from error
        message = str(error) if isinstance(error, UserError) else _describe_bug(error)
        starts = len(read_starts(cell.folder))  # a later one was made by hand
        failure = {"message": message, "starts": starts, "traceback": traceback.format_exc()}
        _write(cell.folder / FAILURE, failure)
        report(f"failed: {cell}: {message}")
    gc.collect()  # a network of a failed run may hang in a circle of references


def _describe_bug(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)} (the traceback is in {FAILURE})"


def _write_cost(cell: Cell) -> None:
    """Counts the multiply-accumulates of a network that maps each image to one row."""
    task, macs = load_task(cell.recipe.task), None
    if task.is_image_level:
        source = open_checkpoint(cell.folder / "last.ckpt")
        _, height, width = source.info.preprocessing["input_size"]
        # An operator without a form that computes nothing must not fail a trained cell.
        with suppress(RuntimeError, NotImplementedError):
            macs = count_macs(source.network.to("meta"), (height, width))
    _write(cell.folder / COST, {"macs": macs})


def _write(path: Path, values: dict[str, object]) -> None:
    text = json.dumps(values, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def has_locks(folder: Path) -> bool:
    """Returns whether processes can claim cells in a folder, which must exist."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return try_lock(file) is True
