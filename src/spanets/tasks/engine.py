"""Runs a recipe: builds data, model and trainer, trains, evaluates, and leaves a run folder.

runs/NAME/
  recipe.yaml            what was run, every key
  last.ckpt  best.ckpt   after the last epoch; after the epoch of highest accuracy
  interrupted.ckpt       as it was when Ctrl-C stopped the run
  metrics.csv            one row an epoch
  tensorboard/           the same for TensorBoard
  results.json           the summary's numbers
  learning_curve.png  confusion_matrix.png
"""

import json
import logging
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

import spanets
from spanets.checkpoint import Card, create_model, read_card
from spanets.data.classification import make_loaders, plain_worker_errors, preprocessing_of
from spanets.recipe import Recipe, parse_recipe
from spanets.tasks.callbacks import (
    BEST,
    INTERRUPTED,
    LAST,
    AtomicCheckpointIO,
    Ema,
    EpochLines,
    RunKeeper,
    best_row,
)
from spanets.tasks.classification import Classification, DivergedError
from spanets.tasks.evaluation import evaluate
from spanets.tasks.report import plot_confusion, plot_curves
from spanets.weights import load_weights, read_checkpoint
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically

# A resumed run may go on elsewhere or with other workers; anything else changes it.
_FREE_ON_RESUME = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "data.workers",
    "data.root",
)


def train(recipe: Recipe, out: Path, resume: bool = False) -> dict[str, Any]:
    """Trains by a recipe and writes the run folder.

    Args:
        recipe: What to run.
        out: The run folder.
        resume: Go on from the last checkpoint in `out`, exactly as if never stopped.

    Returns:
        The numbers of results.json: metrics of the final weights, best epoch, time, paths.

    Raises:
        UsageError: settings that cannot be used, or a folder that holds a run already.
        UserError: data that cannot be used, a loss that is not finite, a full disk, or Ctrl-C;
            the message says which checkpoint is left and how to go on.
    """
    checkpoint, epochs_done = _find_checkpoint(out, recipe) if resume else _start_anew(out)
    loaders = make_loaders(recipe, per_device_batch(recipe), count_processes(recipe))
    # Lightning begins to load the first epoch of a resumed run before it tells the sampler which.
    loaders.train.sampler.set_epoch(epochs_done)  # type: ignore[attr-defined]
    accumulate = min(recipe.trainer.accumulate, len(loaders.train))
    updates = len(loaders.train) // accumulate  # in an epoch
    model = _make_model(recipe, len(loaders.classes), fresh=checkpoint is None)
    task = Classification(model, _make_card(recipe, loaders.classes), recipe, updates)
    keeper = RunKeeper(out)
    trainer = _make_trainer(recipe, out, keeper, accumulate, updates)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_atomically(out / "recipe.yaml", lambda file: file.write(_to_yaml(recipe)))
    with _plain_errors(out), _quiet():
        trainer.fit(task, loaders.train, loaders.val, ckpt_path=checkpoint, weights_only=True)
    if not trainer.is_global_zero:
        raise SystemExit(0)  # the first process of several does the rest
    with _plain_errors(out):
        return _summarise(recipe, out, model, keeper)


def choose_run_folder(recipe: str, out: str | None, resume: bool) -> Path:
    """Returns the folder for a run: as asked, or a free `runs/NAME`; when resuming, the latest.

    Raises:
        UsageError: a file of that name.
    """
    if out is not None:
        if Path(out).is_file():
            raise UsageError(f"--out {out}: is a file; name a folder")
        return Path(out)
    base = Path("runs") / Path(recipe).stem
    folders = [base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 10_000))]
    if resume:
        runs = [folder for folder in folders if (folder / "recipe.yaml").exists()]
        return runs[-1] if runs else base
    return next(folder for folder in folders if not _holds_run(folder))


def per_device_batch(recipe: Recipe) -> int:
    """Derives the images of one batch on one device from the batch size of an update.

    Raises:
        UsageError: they do not divide; the message shows the arithmetic.
    """
    total, accumulate = recipe.optim.batch_size, recipe.trainer.accumulate
    nodes, processes = recipe.trainer.num_nodes, count_processes(recipe)
    per_device, rest = divmod(total, processes * accumulate)
    if rest:
        raise UsageError(
            f"optim.batch_size {total} is not divisible by {processes // nodes} devices × "
            f"{nodes} nodes × {accumulate} accumulated batches = {processes * accumulate}"
        )
    if (recipe.data.mixup or recipe.data.cutmix) and per_device % 2:
        raise UsageError(
            f"data.mixup and data.cutmix pair the images of a batch, and {per_device} a device is "
            "odd; choose another optim.batch_size"
        )
    return per_device


def count_processes(recipe: Recipe) -> int:
    """Returns how many processes train: one a device, on all machines."""
    devices, nodes = recipe.trainer.devices, recipe.trainer.num_nodes
    if devices != "auto":
        return devices * nodes
    uses_gpus = recipe.trainer.accelerator in ("auto", "gpu", "cuda")
    return nodes * (max(1, torch.cuda.device_count()) if uses_gpus else 1)


def _make_model(recipe: Recipe, classes: int, fresh: bool) -> nn.Module:
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model.name, recipe.model.args, num_classes=classes)
    if fresh and recipe.model.weights is not None:
        report = load_weights(model, recipe.model.weights, reset_classifier=True)
        print(report, file=sys.stderr)
    _check_model(model, recipe, classes)
    if recipe.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        model.compile()
    return model


def _check_model(model: nn.Module, recipe: Recipe, classes: int) -> None:
    """Raises a UsageError if the model does not make logits of the recipe's images."""
    size = recipe.data.image_size
    try:
        with torch.no_grad():
            shape = tuple(model.eval()(torch.zeros(1, 3, size, size)).shape)
    # Whatever the model raises, and models check sizes in every way there is.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"model {recipe.model.name} cannot take images of {size}x{size} pixels ({reason}); "
            "set data.image_size or model.args"
        ) from error
    if shape != (1, classes):
        raise UsageError(f"model {recipe.model.name} returns {shape}, not logits (1, {classes})")
    model.train()


def _make_card(recipe: Recipe, classes: list[str]) -> Card:
    return Card(
        model=recipe.model.name,
        model_args=recipe.model.args,
        classes=classes,
        preprocessing=preprocessing_of(recipe.data),
        recipe=recipe.to_dict(),
        version=spanets.__version__,
    )


def _make_trainer(
    recipe: Recipe, out: Path, keeper: RunKeeper, accumulate: int, updates: int
) -> L.Trainer:
    settings, decay = recipe.trainer, recipe.optim.ema_decay
    callbacks: list[L.Callback] = [keeper, EpochLines(watched=sys.stderr.isatty())]
    if decay is not None:
        callbacks.append(Ema(decay=decay))
    try:
        with _quiet():
            return L.Trainer(
                accelerator=settings.accelerator,
                devices=settings.devices,
                num_nodes=settings.num_nodes,
                precision=settings.precision,
                max_epochs=settings.epochs + recipe.optim.cooldown_epochs,
                # Batches that do not fill a last update are left out, as one large one would be.
                limit_train_batches=updates * accumulate,
                accumulate_grad_batches=accumulate,
                gradient_clip_val=recipe.optim.clip_grad,
                check_val_every_n_epoch=min(settings.val_every, settings.epochs),
                callbacks=callbacks,
                logger=TensorBoardLogger(out, name="", version="tensorboard"),
                plugins=[AtomicCheckpointIO()],
                enable_progress_bar=False,
                enable_model_summary=False,
                # A batch of validation images would be evaluated before there is anything to see.
                num_sanity_val_steps=0,
                log_every_n_steps=1_000_000,  # epochs are logged, not steps
                use_distributed_sampler=False,  # ours know the epoch, see `Share`
            )
    except MisconfigurationException as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from error


def _holds_run(folder: Path) -> bool:
    return any(folder.glob("*.ckpt"))


def _start_anew(out: Path) -> tuple[None, int]:
    if _holds_run(out):
        raise UsageError(f"{out}: holds a run already; add --resume or choose another --out")
    return None, 0


def _find_checkpoint(out: Path, recipe: Recipe) -> tuple[Path | None, int]:
    """Returns the checkpoint to go on from, if the run was not stopped before, and its epochs."""
    path = out / LAST
    if not path.exists():
        if (out / "recipe.yaml").exists():
            return None, 0
        raise UsageError(f"{out}: no run to resume; leave --resume out to start one")
    content = read_checkpoint(path)
    before = _flatten(parse_recipe(read_card(content, path).recipe, origin=str(path)))
    for key, value in _flatten(recipe).items():
        if before[key] != value and key not in _FREE_ON_RESUME:
            raise UsageError(
                f"{path} was trained with {key} {before[key]}, not {value}, and a run keeps its "
                f"recipe; go on with: {_resume_command(out)}; or start another with another --out"
            )
    return path, content["epoch"] + 1


def _flatten(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.to_dict().items():
        inner = value if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": value for key, value in inner.items()} or {name: value}
    return flat


def _resume_command(out: Path) -> str:
    words = ["spanets", "train", str(out / "recipe.yaml"), "--out", str(out), "--resume"]
    return shlex.join(words)


@contextmanager
def _plain_errors(out: Path) -> Iterator[None]:
    """Says of a run that ends early what is left of it and how to go on."""
    go_on = f"go on with: {_resume_command(out)}"
    try:
        with plain_worker_errors():
            yield
    except SystemExit:
        # Lightning leaves like this on Ctrl-C, once its callbacks have run.
        left = out / INTERRUPTED
        raise UserError(f"stopped; the weights as they were are in {left}; {go_on}") from None
    except KeyboardInterrupt:  # when the weights are final
        raise UserError(f"stopped; {go_on}") from None
    except (DivergedError, UsageError):
        raise
    except UserError as error:
        raise UserError(f"{error}; when that is mended, {go_on}") from error
    except OSError as error:
        # TensorBoard's writer fails while another error ends the run, or on its own.
        if isinstance(error.__context__, UserError):
            raise UserError(f"{error.__context__}; when that is mended, {go_on}") from error
        where, what = error.filename or out, error.strerror or error
        raise UserError(f"{where}: {what}; when that is mended, {go_on}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Lightning says of itself, and leaves signals and hooks as they were."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    hook, handler = threading.excepthook, signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    # An error of TensorBoard's thread is raised again in this one.
    threading.excepthook = lambda args: None if args.exc_type is OSError else hook(args)
    try:
        with warnings.catch_warnings():
            for module in ("lightning", "torchmetrics", "torch.utils.data"):
                warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        threading.excepthook = hook
        # Lightning ignores Ctrl-C for good where it has met one early.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _summarise(recipe: Recipe, out: Path, model: nn.Module, keeper: RunKeeper) -> dict[str, Any]:
    """Evaluates the final weights; writes and returns the numbers, and draws the pictures."""
    history = keeper.history
    measured = evaluate(out / LAST, None, recipe.data.workers, per_device_batch(recipe))
    best = best_row(history)
    results = {
        "model": recipe.model.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        **measured,
        "epochs": len(history),
        "best_epoch": best["epoch"] if best else None,
        "best_val_accuracy": best["val/accuracy"] if best else None,
        "train_seconds": history[-1]["seconds"],
        "best_checkpoint": str(out / BEST) if best else None,
        "learning_curve": str(out / "learning_curve.png"),
        "confusion_matrix": str(out / "confusion_matrix.png"),
    }
    text = json.dumps(results, indent=2) + "\n"
    write_atomically(out / "results.json", lambda file: file.write(text.encode()))
    plot_curves(history, out / "learning_curve.png", title=recipe.model.name)
    plot_confusion(measured["confusion"], measured["classes"], out / "confusion_matrix.png")
    return results


def _to_yaml(recipe: Recipe) -> bytes:
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False).encode()
