"""Finds where a run starts: at the beginning, or at the resume point of its last checkpoint."""

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from spanets.checkpoint import ModelInfo, read_own
from spanets.data.class_names import compare_classes
from spanets.data.run_data import RunData, read_run_data
from spanets.data.split_list import read_split
from spanets.recipe import Recipe, load_recipe, parse_recipe
from spanets.recipe.keys import read_keys
from spanets.recipe.trust import FLAG, places_outside
from spanets.runs.file_names import DAMAGED, LAST, PREVIOUS, RECIPE
from spanets.runs.record import read_starts
from spanets.training.run_folder import find_foreign, holds_run, is_first
from spanets.weights import WeightsError
from spanets.weights.integrity import check_torch_reads
from spanets_runtime.errors import UsageError, UserError, first_line

# Keys that a resumed run may change: they do not change its result.
FREE_ON_RESUME = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.threads",
    "trainer.strategy",
    "trainer.save_every",
    "trainer.logger",
    "trainer.logger_args",
    "data.workers",
    "data.keep_decoded",
    "data.root",
    "data.images",
    "data.cache",
    "data.max_unreadable",
)


@dataclass(frozen=True)
class Start:
    """The point where a run starts.

    Attributes:
        checkpoint: The checkpoint to resume from; None starts a new run.
        epoch: The epoch to train, from 0.
        batches: Batches of this epoch that every process has already trained on.
        run_data: What the run recorded about its data.
    """

    run_data: RunData
    checkpoint: Path | None = None
    epoch: int = 0
    batches: int = 0


def start_anew(out: Path, recipe: Recipe) -> Start:
    """Returns the start of a new run.

    Raises:
        UsageError: the folder already holds a run, or files that the run would replace.
    """
    if not is_first():  # the first process checks; it may already have written files
        return Start(RunData(out, is_new=True))
    if holds_run(out):
        raise UsageError(f"{out}: already holds a run; add --resume or choose another --out")
    if (name := find_foreign(out, recipe)) is not None:
        raise UsageError(
            f"{out / name}: exists, does not belong to a run and would be replaced; choose another "
            "--out"
        )
    return Start(RunData(out, is_new=True))


def find_start(out: Path, recipe: Recipe) -> Start:
    """Returns the resume point of a run; a run without checkpoints starts at its beginning.

    If the last checkpoint is damaged or missing, it is set aside with a warning, and the previous
    one is used.

    Raises:
        UsageError: the folder holds no run, or one with another recipe.
        WeightsError: all checkpoints are damaged.
    """
    if not os.path.lexists(out / LAST) and not os.path.lexists(out / PREVIOUS):
        if read_starts(out):
            return Start(RunData(out, split=read_split(out)))
        raise UsageError(f"{out}: no run to resume; omit --resume to start one")
    path, content, info = _read_newest(out)
    before = parse_recipe(info.recipe, origin=str(path))
    check_same(before, recipe, path, resume_command(out))
    return _position(path, content, read_run_data(out, info, content))


def check_same(before: Recipe, now: Recipe, path: Path, command: str) -> None:
    """Raises a UsageError if a recipe differs from that of a run in a key that cannot change.

    Args:
        before: The run's recipe.
        now: The recipe to resume with.
        path: The file that holds the run's recipe.
        command: The command that resumes the run.
    """
    values = _flatten(before)
    for key, value in _flatten(now).items():
        if values[key] != value and key not in FREE_ON_RESUME:
            raise UsageError(
                f"{path} was trained with {key} {values[key]}, not {value}, and this key cannot "
                f"change; go on with: {command}; or start a new run with another --out"
            )


def check_classes(before: Sequence[str] | None, now: Sequence[str], path: Path | None) -> None:
    """Compares the classes of the data set with those that a checkpoint was trained on.

    Args:
        before: Classes of the checkpoint, or None if there is none.
        now: Classes of the data set.
        path: Path of the checkpoint.

    Raises:
        UserError: the classes differ in names or order; the message says how.
    """
    if before is not None and (difference := compare_classes(before, now)):
        raise UserError(
            f"{path}: was trained on other classes than the data set has now: {difference}; "
            "restore the classes, or start a new run with another --out"
        )


def resume_command(out: Path, recipe: str = RECIPE) -> str:
    """Returns the command that resumes the run in a folder, with the recipe in this file."""
    words = ["spanets", "train", str(out / recipe), "--out", str(out), "--resume"]
    with suppress(UserError):  # the recipe may be unreadable
        if places_outside(load_recipe(str(out / recipe), trusted=True)):
            words.append(FLAG)
    return shlex.join(words)


def _read_newest(out: Path) -> tuple[Path, dict[str, Any], ModelInfo]:
    try:
        return _read(out / LAST)
    except WeightsError as error:
        if not (out / PREVIOUS).exists():
            raise
        found = _read(out / PREVIOUS)
        print(
            f"spanets: warning: {error}; going on from {PREVIOUS}, saved before it", file=sys.stderr
        )
        # Else the next save would overwrite the good previous checkpoint by the damaged one.
        with suppress(FileNotFoundError):
            (out / LAST).replace(out / DAMAGED)
        return found


def _read(path: Path) -> tuple[Path, dict[str, Any], ModelInfo]:
    """Reads a whole checkpoint.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        info, content = read_own(path)
        check_torch_reads(path)
        return path, content, info
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path}: damaged ({first_line(error)})") from error


def _position(path: Path, content: dict[str, Any], run_data: RunData) -> Start:
    """Returns the resume point in a checkpoint.

    At the end of an epoch, or before its validation, the batch counter still holds the number of
    batches of that epoch.
    """
    try:
        loop = content["loops"]["fit_loop"]
        epochs = loop["epoch_progress"]["current"]["processed"]
        progress = loop["epoch_loop.batch_progress"]
        under_way = epochs == content["epoch"] and not progress["is_last_batch"]
        return Start(run_data, path, epochs, progress["current"]["ready"] if under_way else 0)
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path}: holds only weights, no training state to resume") from error


def _flatten(recipe: Recipe) -> dict[str, Any]:
    values = recipe.to_dict()
    return {key: reduce(getitem, key.split("."), values) for key in read_keys(type(recipe))}
