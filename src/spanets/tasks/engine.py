"""Runs a recipe: builds data, model and trainer, trains, evaluates, and leaves a run folder.

    runs/NAME/
      recipe.yaml            what was run, every key
      last.ckpt  best.ckpt   after the last epoch; after the epoch of highest accuracy
      logs/version_N/        metrics.csv and TensorBoard events, one version a (re)start
      results.json           the summary's numbers
      learning_curve.png  confusion_matrix.png
"""

import json
import logging
import math
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

import spanets
from spanets.checkpoint import Card, create_model, load_checkpoint, restore_model, write_atomically
from spanets.data.classification import (
    Loaders,
    evaluation_loader,
    make_loaders,
    map_classes,
    preprocessing_of,
    read_splits,
)
from spanets.data.folder import scan_folder
from spanets.errors import UsageError, UserError
from spanets.recipe import Recipe, parse_recipe
from spanets.tasks.callbacks import (
    BEST,
    INTERRUPTED,
    LAST,
    AtomicCheckpointIO,
    EpochLines,
    Progress,
    SaveOnInterrupt,
    checkpoint_callbacks,
)
from spanets.tasks.classification import Classification, metrics_for, update_metrics
from spanets.tasks.report import plot_confusion, plot_curves, read_history
from spanets.weights import load_weights

# A resumed run may go on longer, elsewhere or with other workers; anything else changes it.
_FREE_ON_RESUME = ("trainer.accelerator", "trainer.devices", "data.workers", "data.root")


def train(recipe: Recipe, out: Path, resume: bool = False, name: str = "recipe") -> dict[str, Any]:
    """Trains by a recipe and writes the run folder.

    Args:
        recipe: What to run.
        out: The run folder.
        resume: Go on from the last checkpoint in `out`, exactly as if never stopped.
        name: The recipe's name, for messages.

    Returns:
        The numbers of results.json: metrics of the final weights, best epoch, time, paths.

    Raises:
        UserError: data, model or keys that cannot be used, a loss that is not finite, a full
            disk, or Ctrl-C; the message says which checkpoint is left and how to go on.
    """
    checkpoint = _find_resume(out, recipe) if resume else None
    batch = per_device_batch(recipe)
    seed = recipe.seed
    L.seed_everything(seed, workers=True, verbose=False)
    loaders = make_loaders(recipe, batch)
    model = _make_model(recipe, len(loaders.classes))
    steps = math.ceil(len(loaders.train) / recipe.trainer.accumulate)
    task = Classification(model, _make_card(recipe, loaders.classes), recipe, steps)
    write_atomically(out / "recipe.yaml", lambda file: file.write(_to_yaml(recipe)))
    started = time.monotonic()
    with _quiet():
        trainer = _make_trainer(recipe, out)
        try:
            trainer.fit(
                task, loaders.train, loaders.val, ckpt_path=checkpoint, weights_only=True
            )
        except SystemExit:
            # Lightning leaves like this on Ctrl-C, once its callbacks have run.
            raise UserError(_describe_interrupt(out, name)) from None
    seconds = time.monotonic() - started
    return _summarise(recipe, out, loaders, trainer, seconds)


def choose_run_folder(recipe: str, out: str | None, resume: bool) -> Path:
    """Returns the folder for a run: as asked, or a free `runs/NAME`; when resuming, the latest.

    Raises:
        UserError: a run is there already, and neither `--resume` nor another folder was asked.
    """
    if out is not None:
        folder = Path(out)
        if not resume and (folder / "recipe.yaml").exists():
            raise UserError(f"{folder}: holds a run already; add --resume or choose another --out")
        return folder
    base = Path("runs") / Path(recipe).stem
    numbered = [base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 10_000))]
    free = next(i for i, folder in enumerate(numbered) if not (folder / "recipe.yaml").exists())
    return numbered[max(0, free - 1)] if resume else numbered[free]


def evaluate(
    path: Path, root: str | None = None, workers: int = 2, batch_size: int = 64
) -> dict[str, Any]:
    """Measures a checkpoint on labelled images.

    Args:
        path: A checkpoint with its card.
        root: A folder of class folders; None takes the checkpoint's own test part, or where it
            has none its validation part.
        workers: Processes that load images.
        batch_size: Images at a time.

    Returns:
        Metrics by name, the number of images, and the confusion matrix (rows: truth).

    Raises:
        UserError: an unreadable checkpoint, or data that does not fit it.
    """
    model, card = restore_model(path)
    if root is None:
        parts = read_splits(parse_recipe(card.recipe, origin=str(path)).data)
        part = "test" if "test" in parts else "val"
        samples = parts[part]
    else:
        part, samples = root, scan_folder(root)
    samples = map_classes(samples, card.classes)
    loader = evaluation_loader(samples, card.preprocessing, batch_size, workers)
    return {"checkpoint": str(path), "data": part, **measure(model, loader, card.classes)}


@torch.inference_mode()
def measure(model: nn.Module, loader: DataLoader[Any], classes: list[str]) -> dict[str, Any]:
    """Returns metrics, number of images and confusion matrix of a classifier on a loader."""
    from tqdm import tqdm

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    metrics = metrics_for(len(classes)).to(device)
    images_seen, loss = 0, 0.0
    for images, labels in tqdm(loader, desc="evaluate", disable=None, leave=False):
        logits = model(images.to(device)).float()
        labels = labels.to(device)
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        update_metrics(metrics, logits, labels)
        images_seen += len(labels)
    values = metrics.compute()
    confusion = values.pop("confusion").long().tolist()
    return {
        "images": images_seen,
        "metrics": {
            "loss": loss / images_seen,
            **{name: value.item() for name, value in values.items()},
        },
        "classes": classes,
        "confusion": confusion,
    }


def per_device_batch(recipe: Recipe) -> int:
    """Derives the images of one batch on one device from the batch size of an update.

    Raises:
        UsageError: they do not divide; the message shows the arithmetic.
    """
    trainer, total = recipe.trainer, recipe.optim.batch_size
    devices = trainer.devices if isinstance(trainer.devices, int) else _device_count(recipe)
    parts = devices * trainer.num_nodes * trainer.accumulate
    if total % parts:
        raise UsageError(
            f"optim.batch_size {total} is not divisible by {devices} devices × "
            f"{trainer.num_nodes} nodes × {trainer.accumulate} accumulated batches = {parts}"
        )
    per_device = total // parts
    mixes = recipe.data.mixup or recipe.data.cutmix
    if mixes and per_device % 2:
        raise UsageError(
            f"mixing pairs the images of a batch, and {per_device} a device is odd; "
            "choose an even optim.batch_size"
        )
    return per_device


def _device_count(recipe: Recipe) -> int:
    if recipe.trainer.accelerator in ("auto", "gpu", "cuda"):
        return max(1, torch.cuda.device_count())
    return 1


def _make_model(recipe: Recipe, classes: int) -> nn.Module:
    model = create_model(recipe.model.name, recipe.model.args, num_classes=classes)
    if recipe.model.weights is not None:
        report = load_weights(model, recipe.model.weights, reset_classifier=True)
        print(report, file=sys.stderr)
    if recipe.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        model.compile()
    return model


def _make_card(recipe: Recipe, classes: list[str]) -> Card:
    return Card(
        model=recipe.model.name,
        model_args=recipe.model.args,
        classes=classes,
        preprocessing=preprocessing_of(recipe.data),
        recipe=recipe.to_dict(),
        version=spanets.__version__,
    )


def _make_trainer(recipe: Recipe, out: Path) -> L.Trainer:
    watched = sys.stderr.isatty()
    settings = recipe.trainer
    callbacks = [*checkpoint_callbacks(out), SaveOnInterrupt(out)]
    callbacks.append(Progress() if watched else EpochLines())
    if recipe.optim.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.optim.ema_decay))
    csv = CSVLogger(out, name="logs")
    board = TensorBoardLogger(out, name="logs", version=csv.version)
    return L.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        precision=settings.precision,
        max_epochs=settings.epochs + recipe.optim.cooldown_epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=recipe.optim.clip_grad,
        check_val_every_n_epoch=min(settings.val_every, settings.epochs),
        callbacks=callbacks,
        logger=[csv, board],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=watched,
        enable_model_summary=False,
        # A batch of the validation images would be evaluated before there is anything to see.
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,  # epochs are logged, not steps
        use_distributed_sampler=True,
    )


def _find_resume(out: Path, recipe: Recipe) -> Path | None:
    """The checkpoint to go on from; None if the run was stopped before its first."""
    path = out / LAST
    if not path.exists():
        if (out / "recipe.yaml").exists():
            return None
        raise UserError(f"{out}: no run to resume; leave --resume out to start one")
    card, _ = load_checkpoint(path)
    before, now = _flat(card.recipe), _flat(recipe.to_dict())
    for key in now:
        if before.get(key) != now[key] and key not in _FREE_ON_RESUME:
            raise UsageError(
                f"{path} was trained with {key} {before.get(key)}, not {now[key]}; resume with "
                "the same recipe and keys, or start another run with --out"
            )
    return path


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        inner = isinstance(value, dict) and key != "args"
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def _describe_interrupt(out: Path, name: str) -> str:
    return (
        f"stopped. The weights so far: {out / INTERRUPTED}. "
        f"Go on with: spanets train {name} --out {out} --resume"
    )


def _summarise(
    recipe: Recipe, out: Path, loaders: Loaders, trainer: L.Trainer, seconds: float
) -> dict[str, Any]:
    """Evaluates the final weights, draws the pictures, and writes and returns results.json."""
    part = "val" if loaders.test is None else "test"
    loader = loaders.val if loaders.test is None else loaders.test
    model, card = restore_model(out / LAST)
    measured = measure(model, loader, card.classes)
    history = read_history(out / "logs")
    best = max(history, key=lambda row: row.get("val/accuracy", 0.0), default={})
    results = {
        "model": recipe.model.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": part,
        **measured,
        "epochs": trainer.current_epoch,
        "best_epoch": int(best["epoch"]) + 1 if best else None,
        "best_val_accuracy": best.get("val/accuracy"),
        "train_seconds": round(seconds, 1),
        "checkpoint": str(out / LAST),
        "best_checkpoint": str(out / BEST),
        "learning_curve": str(out / "learning_curve.png"),
        "confusion_matrix": str(out / "confusion_matrix.png"),
    }
    plot_curves(history, out / "learning_curve.png", title=recipe.model.name)
    plot_confusion(measured["confusion"], card.classes, out / "confusion_matrix.png")
    text = json.dumps(results, indent=2) + "\n"
    write_atomically(out / "results.json", lambda file: file.write(text.encode()))
    return results


def _to_yaml(recipe: Recipe) -> bytes:
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False).encode()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's notes on hardware, workers and log intervals, not its warnings on runs."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", module="torchmetrics")
        yield
    logger.setLevel(level)
