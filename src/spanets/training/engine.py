"""Runs a recipe: builds data, model and trainer, trains, evaluates, and leaves a run folder.

runs/NAME/
  recipe.yaml            what was run, every key
  split.csv              which image is in which part, where the data set was split
  environment.json       of each start: command, versions, machine, git state, and how it ended
  last.ckpt  best.ckpt   the last that was saved; after the epoch of the best score
  previous.ckpt          the one before the last, in case that one is damaged
  diverged.safetensors   the batch at which the loss became no number
  interrupted.ckpt       as it was when Ctrl-C stopped the run
  metrics.csv            one row an epoch
  tensorboard/           the same for TensorBoard, or what another `trainer.logger` writes
  results.json           the summary's numbers
  unreadable.csv         images that cannot be read, if there are any
  learning_curve.png     and the other pictures of the task
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from spanets.checkpoint import ModelInfo
from spanets.data.loaders import Loaders, RankSampler
from spanets.data.split_list import write_split
from spanets.recipe import Recipe
from spanets.runs.folder import BEST, LAST, RESULTS
from spanets.runs.record import recorded
from spanets.sources import open_checkpoint
from spanets.tasks import load_task
from spanets.training.callbacks import (
    AtomicCheckpointIO,
    Ema,
    EpochLines,
    Row,
    RunKeeper,
    best_row,
)
from spanets.training.devices import (
    LimitedThreads,
    count_processes,
    describe_devices,
    fit_to_machine,
    per_device_batch,
    slurm_plugins,
    threads_as_before,
)
from spanets.training.diverging import DivergedBatch
from spanets.training.faults import plain_errors, quiet
from spanets.training.loggers import make_logger
from spanets.training.peers import Peers
from spanets.training.report import draw_pictures
from spanets.training.resuming import (
    Start,
    check_classes,
    find_start,
    resume_command,
    start_anew,
)
from spanets.training.run_folder import claim, is_first, write_recipe
from spanets.training.task import EvalOptions, Task
from spanets.training.unreadable_images import UnreadableImages
from spanets_runtime.errors import UsageError
from spanets_runtime.files import write_atomically
from spanets_runtime.text import escape_values


def train(recipe: Recipe, out: Path, resume: bool = False) -> dict[str, Any]:
    """Trains by a recipe and writes the run folder.

    Args:
        recipe: What to run.
        out: The run folder.
        resume: Go on from the last checkpoint in `out`, exactly as if never stopped.

    Returns:
        The numbers of results.json: metrics of the final weights, best epoch, time, paths.

    Raises:
        UsageError: settings that cannot be used, or a folder that holds a run already, or files
            that are of no run and would be replaced.
        UserError: another process trains in the folder; data that cannot be used, a loss that is
            not finite, a full disk, or Ctrl-C: the message says which checkpoint is left and how
            to go on.
    """
    with claim(out):
        return train_claimed(recipe, out, resume)


def train_claimed(recipe: Recipe, out: Path, resume: bool = False) -> dict[str, Any]:
    """Trains as `train` does, in a folder that the caller has claimed."""
    start = find_start(out, recipe) if resume else start_anew(out, recipe)
    recipe, lowered = fit_to_machine(recipe)
    task, batch_size = load_task(recipe.task)(recipe), per_device_batch(recipe)
    task.check_batch(batch_size)
    loaders = task.make_loaders(batch_size, count_processes(recipe), start.kept)
    check_classes(start.kept.classes, loaders.classes, start.checkpoint)
    _skip_to(start, loaders)
    accumulate = min(recipe.trainer.accumulate, len(loaders.train))
    updates = len(loaders.train) // accumulate  # in an epoch
    info = task.make_info(loaders.classes)
    is_fresh, size = start.checkpoint is None, loaders.train.batch_size or 1
    model, weights_notes = _make_model(task, info, is_fresh, size)
    module = task.make_module(model, info, updates)
    keeper = RunKeeper(out, task.score, recipe.trainer.save_every)
    callbacks = [keeper, UnreadableImages(out, loaders.unreadable)]
    trainer = _make_trainer(task, out, callbacks, accumulate, updates)
    notes = (*lowered, *loaders.notes, *weights_notes)
    recording = recorded(out, notes) if is_first() else nullcontext()
    with recording, threads_as_before():
        if is_first():
            for note in notes:
                print(note, file=sys.stderr)
            write_recipe(recipe, out)
            if loaders.split is not None and start.kept.split is None:
                write_split(out, loaders.split)
        with plain_errors(out), quiet():
            if trainer.logger is not None:
                # Loggers take no text that is no UTF-8, as names of folders may be.
                trainer.logger.log_hyperparams(escape_values(recipe.to_dict()))
            path = start.checkpoint
            trainer.fit(module, loaders.train, loaders.val, ckpt_path=path, weights_only=True)
        if not trainer.is_global_zero:
            raise SystemExit(0)  # the first process of several does the rest
        with plain_errors(out):
            return _summarise(task, out, model, keeper.history)


def _skip_to(start: Start, loaders: Loaders) -> None:
    """Lets the training images begin where a run goes on."""
    # Lightning begins to load the first epoch of a resumed run before it tells the sampler which.
    sampler: RankSampler = loaders.train.sampler  # type: ignore[assignment]
    sampler.set_epoch(start.epoch)
    sampler.skip(start.batches * (loaders.train.batch_size or 0))


def _make_model(
    task: Task[Any], info: ModelInfo, fresh: bool, batch: int
) -> tuple[nn.Module, list[str]]:
    """Builds the model that a run begins with; returns what of its file of weights differs, too."""
    notes: list[str] = []
    recipe: Recipe = task.recipe
    torch.manual_seed(recipe.seed)
    model = task.build_model(info)
    if fresh and recipe.model.weights is not None:
        report = task.load_weights(model, recipe.model.weights)
        print(report, file=sys.stderr)
        notes = report.notes()
    task.check_model(model, len(info.classes))
    task.check_batch_norm(model, batch)
    if recipe.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        model.compile()
    return model, notes


def _make_trainer(
    task: Task[Any], out: Path, callbacks: list[L.Callback], accumulate: int, updates: int
) -> L.Trainer:
    recipe: Recipe = task.recipe
    settings, decay = recipe.trainer, recipe.optim.ema_decay
    peers = Peers(advice=f"go on with: {resume_command(out)}")
    # What a batch's file is called, the other processes are told.
    shown = task.shown or {"train/loss": "loss", task.score: task.score.removeprefix("val/")}
    callbacks = [DivergedBatch(out), peers, *callbacks, EpochLines(sys.stderr.isatty(), shown)]
    if decay is not None:
        callbacks.append(Ema(decay=decay))
    if settings.threads is not None:
        callbacks.append(LimitedThreads(settings.threads))
    try:
        with quiet():
            return L.Trainer(
                accelerator=settings.accelerator,
                **describe_devices(recipe),
                precision=settings.precision,
                max_epochs=settings.epochs + recipe.optim.cooldown_epochs,
                # Batches that do not fill a last update are left out, as one large one would be.
                limit_train_batches=updates * accumulate,
                accumulate_grad_batches=accumulate,
                gradient_clip_val=recipe.optim.clip_grad,
                check_val_every_n_epoch=min(settings.val_every, settings.epochs),
                callbacks=callbacks,
                logger=make_logger(recipe, out) or False,
                plugins=[AtomicCheckpointIO(), *slurm_plugins()],
                enable_progress_bar=False,
                enable_model_summary=False,
                # A batch of validation images would be evaluated before there is anything to see.
                num_sanity_val_steps=0,
                log_every_n_steps=1_000_000,  # epochs are logged, not steps
                use_distributed_sampler=False,  # ours know the epoch, see `RankSampler`
            )
    except MisconfigurationException as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from error


def _summarise(task: Task[Any], out: Path, model: nn.Module, history: list[Row]) -> dict[str, Any]:
    """Evaluates the final weights; writes and returns the numbers, and draws the pictures."""
    recipe: Recipe = task.recipe
    batch_size = per_device_batch(recipe)
    source = open_checkpoint(out / LAST)
    options = EvalOptions(workers=recipe.data.workers, batch_size=batch_size, trusted=True)
    measured = task.evaluate(source, options)
    best = best_row(history, task.score)
    results: dict[str, Any] = {
        "model": recipe.model.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        **measured,
        "epochs": len(history),
        "score": task.score.removeprefix("val/"),
        "best_epoch": best["epoch"] if best else None,
        "best_score": best[task.score] if best else None,
        "train_seconds": history[-1]["seconds"],
        "best_checkpoint": str(out / BEST) if best else None,
    }
    _write_results({**results, "pictures": {}}, out)  # whatever becomes of the pictures
    results["pictures"] = draw_pictures(task.pictures(history, measured), out)
    _write_results(results, out)
    return results


def _write_results(results: dict[str, Any], out: Path) -> None:
    text = json.dumps(results, indent=2) + "\n"
    write_atomically(out / RESULTS, lambda file: file.write(text.encode()))
