"""Runs a recipe: builds data, model and trainer, trains, evaluates, and writes a run folder.

runs/NAME/
  recipe.yaml            the recipe, with every key
  split.csv              the part (train, val, test) of each image, if the run split the data set
  environment.json       for each start: command, versions, machine, git state, outcome
  last.ckpt              the latest checkpoint
  previous.ckpt          the checkpoint before last.ckpt, in case that one is damaged
  best.ckpt              the checkpoint of the epoch with the best score
  interrupted.ckpt       the state when Ctrl-C stopped the run
  diverged.safetensors   the batch at which the loss became NaN or infinite
  metrics.csv            one row an epoch
  tensorboard/           the same metrics for TensorBoard, or the files of another `trainer.logger`
  results.json           the numbers of the summary
  unreadable.csv         images that cannot be read, if there are any
  learning_curve.png     and other pictures of the task
  report.html            the page of `spanets report`, which `spanets train` writes at its end
"""

import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from spanets.checkpoint import ModelInfo
from spanets.data.loaders import Loaders, RankSampler
from spanets.data.split_list import SplitList, write_split
from spanets.recipe import Recipe
from spanets.recipe.preprocessing import describe_preprocessing
from spanets.runs.file_names import BEST, LAST, RESULTS
from spanets.runs.record import recorded
from spanets.sources import open_checkpoint
from spanets.tasks import load_task
from spanets.training.adapters import add_adapters
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
    describe_precision,
    fit_to_machine,
    per_device_batch,
    slurm_plugins,
    threads_as_before,
)
from spanets.training.diverging import DivergedBatch
from spanets.training.faults import plain_errors, quiet
from spanets.training.initial import (
    Frozen,
    describe_frozen,
    find_frozen,
    pretrained_weights,
)
from spanets.training.loggers import make_logger
from spanets.training.options import EvalOptions
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
from spanets.training.task import Task
from spanets.training.unreadable_images import UnreadableImages
from spanets_runtime.errors import UsageError
from spanets_runtime.files import write_atomically
from spanets_runtime.text import escape_values


def train(recipe: Recipe, out: Path, resume: bool = False) -> dict[str, Any]:
    """Trains a model from a recipe and writes the run folder.

    Args:
        recipe: The recipe.
        out: The run folder.
        resume: Continue from the last checkpoint in `out`, exactly as if the run had not stopped.

    Returns:
        The contents of results.json: metrics of the final weights, best epoch, time, paths.

    Raises:
        UsageError: the settings cannot be used, the folder already holds a run, or it holds other
            files that the run would replace.
        UserError: another process trains in the folder, the data cannot be used, the loss is not
            finite, the disk is full, or Ctrl-C. The message says how to resume.
    """
    with claim(out):
        return train_claimed(recipe, out, resume)


def train_claimed(
    recipe: Recipe, out: Path, resume: bool = False, split: SplitList | None = None
) -> dict[str, Any]:
    """Trains like `train`, in a folder that the caller has locked with `claim`.

    Args:
        recipe, out, resume: See `train`.
        split: The split to train on, unless the run has recorded one.
    """
    start = find_start(out, recipe) if resume else start_anew(out, recipe)
    is_recorded = start.run_data.split is not None
    if split is not None and not is_recorded:
        start = replace(start, run_data=replace(start.run_data, split=split))
    recipe, lowered = fit_to_machine(recipe)
    task, batch_size = load_task(recipe.task)(recipe), per_device_batch(recipe)
    task.check_batch(batch_size)
    loaders = task.make_loaders(batch_size, count_processes(recipe), start.run_data)
    check_classes(start.run_data.classes, loaders.classes, start.checkpoint)
    _skip_to(start, loaders)
    accumulate = min(recipe.trainer.accumulate, len(loaders.train))
    updates = len(loaders.train) // accumulate  # optimizer updates in an epoch
    info = task.make_info(loaders.classes)
    is_fresh, size = start.checkpoint is None, loaders.train.batch_size or 1
    model, frozen, weights_notes = _make_model(task, info, is_fresh, size)
    keeper = RunKeeper(out, task.score, recipe.trainer.save_every, recipe.trainer.patience)
    callbacks = [keeper, UnreadableImages(out, loaders.unreadable), frozen]
    module = task.make_module(model, info, updates)
    trainer = _make_trainer(task, out, callbacks, accumulate, updates)
    about_loss: Iterable[str] = getattr(module, "notes", ())
    notes = (*lowered, *loaders.notes, *weights_notes, *about_loss)
    recording = recorded(out, notes) if is_first() else nullcontext()
    with recording, threads_as_before():
        if is_first():
            for note in notes:
                print(note, file=sys.stderr)
            write_recipe(recipe, out)
            if loaders.split is not None and not is_recorded:
                write_split(out, loaders.split)
        with plain_errors(out), quiet():
            if trainer.logger is not None:
                # Loggers accept only valid UTF-8; folder names may hold other bytes.
                trainer.logger.log_hyperparams(escape_values(recipe.to_dict()))
            path = start.checkpoint
            trainer.fit(module, loaders.train, loaders.val, ckpt_path=path, weights_only=True)
        if not trainer.is_global_zero:
            raise SystemExit(0)  # only the first process evaluates and reports
        if keeper.is_over():
            print(_describe_early_stop(task, keeper), file=sys.stderr)
        with plain_errors(out):
            return _summarise(task, out, keeper.history)


def _skip_to(start: Start, loaders: Loaders) -> None:
    """Moves the training sampler to the resume point."""
    # Lightning starts to load a resumed epoch before it sets the sampler's epoch.
    sampler: RankSampler = loaders.train.sampler  # type: ignore[assignment]
    sampler.set_epoch(start.epoch)
    sampler.skip(start.batches * (loaders.train.batch_size or 0))


def _make_model(
    task: Task[Any], info: ModelInfo, fresh: bool, batch: int
) -> tuple[nn.Module, Frozen, list[str]]:
    """Builds the initial model; returns it, what is frozen of it, and notes on its weights."""
    notes: list[str] = []
    recipe: Recipe = task.recipe
    torch.manual_seed(recipe.seed)
    model = task.build_model(info)
    given = pretrained_weights(recipe) if recipe.model.pretrained else recipe.model.weights
    if fresh and given is not None:
        report = task.load_weights(model, given)
        if recipe.model.pretrained:
            report.path = f"published weights of {recipe.model.name}"
        notes = str(report).splitlines()
        notes.append(describe_preprocessing(recipe))
    task.check_model(model, len(info.classes))
    frozen, note = _freeze(model, recipe)
    notes += note
    task.check_batch_norm(model, batch)  # frozen ones do not compute a variance
    if recipe.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        model.compile()
    return model, frozen, notes


def _freeze(model: nn.Module, recipe: Recipe) -> tuple[Frozen, list[str]]:
    """Adds adapters and freezes what the recipe says; returns a callback and a line, if any."""
    if recipe.model.lora.is_on:
        norms, note = add_adapters(model, recipe.model.lora)
        return Frozen(norms), [note]
    if not recipe.model.freeze:
        return Frozen({}), []
    frozen = find_frozen(model, recipe.model.freeze)
    return Frozen(frozen), [describe_frozen(model, frozen)]


def _make_trainer(
    task: Task[Any], out: Path, callbacks: list[L.Callback], accumulate: int, updates: int
) -> L.Trainer:
    recipe: Recipe = task.recipe
    settings, decay = recipe.trainer, recipe.optim.ema_decay
    precision = describe_precision(recipe)
    plugins = [AtomicCheckpointIO(), *slurm_plugins(), *precision.pop("plugins")]
    peers = Peers(advice=f"go on with: {resume_command(out)}")
    # `DivergedBatch` comes before `Peers`, so that the other processes get its file name too.
    metric = task.score.removeprefix("val/")
    shown = dict(task.metric_labels or {"train/loss": "loss"})
    shown.setdefault(task.score, metric.replace("_", " "))
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
                **precision,
                max_epochs=settings.epochs + recipe.optim.cooldown_epochs,
                # Drop the last batches if they do not fill an update, like an incomplete batch.
                limit_train_batches=updates * accumulate,
                accumulate_grad_batches=accumulate,
                gradient_clip_val=recipe.optim.clip_grad,
                check_val_every_n_epoch=min(settings.val_every, settings.epochs),
                callbacks=callbacks,
                logger=make_logger(recipe, out) or False,
                plugins=plugins,
                enable_progress_bar=False,
                enable_model_summary=False,
                # A sanity check would evaluate untrained weights.
                num_sanity_val_steps=0,
                log_every_n_steps=1_000_000,  # log epochs, not steps
                use_distributed_sampler=False,  # `RankSampler` is our distributed sampler
            )
    except MisconfigurationException as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from error


def _describe_early_stop(task: Task[Any], keeper: RunKeeper) -> str:
    best = best_row(keeper.history, task.score)
    assert best is not None
    return (
        f"stopped early after epoch {len(keeper.history)}: {task.score.removeprefix('val/')} is "
        f"not better than in epoch {best['epoch']} for {keeper.patience} validations "
        "(trainer.patience)"
    )


def _summarise(task: Task[Any], out: Path, history: list[Row]) -> dict[str, Any]:
    """Evaluates the final weights, draws the pictures, and writes and returns the results.

    A run with early stopping is evaluated at its best epoch.
    """
    recipe: Recipe = task.recipe
    batch_size = per_device_batch(recipe)
    best = best_row(history, task.score)
    options = EvalOptions(workers=recipe.data.workers, batch_size=batch_size, trusted=True)
    kept = [out / name for name in (LAST, BEST) if (out / name).is_file()]
    for note in task.finish(kept, options):
        print(note, file=sys.stderr)
    source = open_checkpoint(out / (BEST if best and recipe.trainer.patience else LAST))
    measured = task.evaluate(source, options)
    results: dict[str, Any] = {
        "model": recipe.model.name,
        "parameters": sum(p.numel() for p in source.network.parameters()),
        **measured,
        "epochs": len(history),
        "score": task.score.removeprefix("val/"),
        "best_epoch": best["epoch"] if best else None,
        "best_score": best[task.score] if best else None,
        "train_seconds": history[-1]["seconds"],
        "best_checkpoint": str(out / BEST) if best else None,
    }
    _write_results({**results, "pictures": {}}, out)  # keep the numbers if drawing fails
    results["pictures"] = draw_pictures(task.pictures(history, measured), out)
    _write_results(results, out)
    return results


def _write_results(results: dict[str, Any], out: Path) -> None:
    text = json.dumps(results, indent=2) + "\n"
    write_atomically(out / RESULTS, lambda file: file.write(text.encode()))
