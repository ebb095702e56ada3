"""Measures a checkpoint or an exported file on labelled images."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from spanets.classification.data import (
    evaluation_loader,
    read_splits,
    unreadable_of,
)
from spanets.classification.images import named_images
from spanets.classification.metrics import balanced_accuracy, metrics_for, recalls, update_metrics
from spanets.classification.recipe import ClassificationRecipe
from spanets.data.loaders import plain_worker_errors
from spanets.data.run_data import read_run_data
from spanets.data.samples import Samples, map_classes
from spanets.data.sources.imagenet import has_imagenet_names, name_classes
from spanets.sources import Source, as_source
from spanets.training.own_data import info_recipe, own_recipe
from spanets_runtime.errors import UsageError, UserError


def evaluate(
    source: Source | str | Path,
    root: str | None = None,
    workers: int = 2,
    batch_size: int = 64,
    trusted: bool = False,
) -> dict[str, Any]:
    """Measures a checkpoint or an exported file on labelled images.

    Args:
        source: A checkpoint, an exported file, the path of one, or a model's name.
        root: A folder with class folders, or with parts of which "test" or else "val" is measured.
            None takes the same part of the run's own data set and split list; exported files have
            none.
        workers: Number of worker processes.
        batch_size: Images in a batch.
        trusted: Whether the checkpoint's recipe may choose the data set; see `own_data`.

    Returns:
        Metrics by name, number of images, and confusion matrix (rows: truth), except for a model
        of ImageNet's classes by name. A metric that the
        images do not define is None, such as AUROC if all have one class. "unreadable" lists
        unreadable images, which were left out; the recipe limits their number.

    Raises:
        UsageError: an exported file is for another task or has no `root`, or the checkpoint may
            not choose the data set.
        UserError: the checkpoint cannot be read, or the data do not fit it.
    """
    source = as_classifier(source)
    info, recipe = source.info, None
    if source.is_checkpoint:
        recipe = info_recipe(source, ClassificationRecipe)
    elif root is None:
        raise UsageError(f"{source.word} does not tell its test images; name a folder with --data")
    if root is None:
        part, samples = _own_images(source, trusted)
    else:
        part, samples = named_images(root, source, recipe)
    is_imagenet = has_imagenet_names(info.classes)
    if is_imagenet:
        names, notes = name_classes(samples.classes)
        samples = replace(samples, classes=names, notes=(*samples.notes, *notes))
    samples = map_classes(samples, info.classes)
    allowed = 0.0 if recipe is None else recipe.data.max_unreadable
    loader = evaluation_loader(
        samples, info.preprocessing, batch_size, workers, max_unreadable=allowed
    )
    measured = measure(source.network, loader, info.classes)
    if is_imagenet:
        del measured["confusion"]  # a million numbers
    unreadable = unreadable_of(loader)
    left_out = [f"{samples.images[i]}: {unreadable.reason(i)}" for i in unreadable.indices()]
    told = {"unreadable": left_out, "notes": list(samples.notes)}
    return {"checkpoint": source.word, "data": part, **measured, **told}


def as_classifier(given: Source | str | Path) -> Source:
    """Opens a classifier.

    Raises:
        UsageError: the exported file is for another task.
        UserError: the checkpoint is for another task.
    """
    source = as_source(given)
    if source.exported and source.info.task != "classification":
        raise UsageError(
            f"{source.word} is for {source.info.task}; of exported files eval takes classifiers, "
            "else give the checkpoint"
        )
    source.require_classifier()
    return source


def _own_images(source: Source, trusted: bool) -> tuple[str, Samples]:
    recipe = own_recipe(source, ClassificationRecipe, trusted)
    assert source.path is not None
    try:
        run_data = read_run_data(source.path.parent, source.info, source.content)
        parts = read_splits(recipe.data, run_data)
    except UserError as error:
        raise UserError(f"{error}; or name a folder with --data") from None
    part = "test" if "test" in parts else "val"
    return part, parts[part]


def measure(model: nn.Module, loader: DataLoader[Any], classes: list[str]) -> dict[str, Any]:
    """Returns metrics, number of images and confusion matrix of a classifier on a loader."""
    metrics = metrics_for(len(classes)).to(_device())
    count, loss = 0, 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchmetrics")  # undefined metrics become None
        for logits, labels in classify(model, loader):
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            update_metrics(metrics, logits, labels)
            count += len(labels)
        values = metrics.compute()
    confusion = values.pop("confusion").long()
    numbers = {"loss": loss / count, **{name: value.item() for name, value in values.items()}}
    numbers["balanced_accuracy"] = balanced_accuracy(confusion)
    return {
        "images": count,
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in numbers.items()
        },
        "classes": classes,
        "recall": recalls(confusion),
        "confusion": confusion.tolist(),
    }


@torch.inference_mode()
def classify(model: nn.Module, loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields logits (B, classes), float32, and labels (B,), on a GPU if there is one."""
    device = _device()
    model = model.to(device).eval()
    with plain_worker_errors():
        for images, labels in tqdm(loader, desc="evaluate", disable=None, leave=False):
            if len(labels):  # 0 if no image of the batch is readable
                yield model(images.to(device)).float(), labels.to(device)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
