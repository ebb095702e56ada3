"""Measures a checkpoint or an exported file on labelled images."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from spanets.classification.answers import Answers, calibration_error, read_answers
from spanets.classification.calibration import (
    TTA,
    Mirrored,
    rates_at,
    recommend_threshold,
    temperature_of,
)
from spanets.classification.calibration import calibrate as fit_and_store
from spanets.classification.data import (
    evaluation_loader,
    read_splits,
    unreadable_of,
)
from spanets.classification.errors import check_errors, name_images, save_errors
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
    *,
    errors: Path | None = None,
    calibrate: bool = False,
    precision: float | None = None,
    tta: bool = False,
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
        errors: Folder for a page of mistakes and a table of all answers, or None.
        calibrate: Whether to fit a temperature on the run's validation images and store it in the
            checkpoint.
        precision: Precision for which a threshold is recommended, in addition to that of the best
            F1; for two classes, on the run's validation images.
        tta: Whether to average probabilities over each image and its mirror image.

    Returns:
        Metrics by name, number of images, and confusion matrix (rows: truth), except for a model
        of ImageNet's classes by name. A metric that the
        images do not define is None, such as AUROC if all have one class. "unreadable" lists
        unreadable images, which were left out; the recipe limits their number.

    Raises:
        UsageError: an exported file is for another task or has no `root`, the checkpoint may
            not choose the data set, or options do not go together.
        UserError: the checkpoint cannot be read, or the data do not fit it.
    """
    source = as_classifier(source)
    info, recipe = source.info, None
    if source.is_checkpoint:
        recipe = info_recipe(source, ClassificationRecipe)
    elif root is None:
        raise UsageError(f"{source.word} does not tell its test images; name a folder with --data")
    _check_extras(source, root, calibrate, precision, tta)
    if errors is not None:
        check_errors(errors)
    val = None
    if root is None:
        part, samples, val, root_of = _own_images(source, trusted)
    else:
        root_of = root
        part, samples = named_images(root, source, recipe)
    is_imagenet = has_imagenet_names(info.classes)
    if is_imagenet:
        names, notes = name_classes(samples.classes)
        samples = replace(samples, classes=names, notes=(*samples.notes, *notes))
    samples = map_classes(samples, info.classes)
    load = partial(
        evaluation_loader,
        preprocessing=info.preprocessing,
        batch_size=batch_size,
        workers=workers,
        max_unreadable=0.0 if recipe is None else recipe.data.max_unreadable,
    )
    network = Mirrored(source.network) if tta else source.network
    extras: dict[str, Any] = {"tta": TTA} if tta else {}
    if calibrate:
        assert val is not None
        logits, labels = map(
            torch.cat, zip(*_on_cpu(network, load(map_classes(val, info.classes))), strict=True)
        )
        extras["calibration"] = fit_and_store(source, logits, labels)
        info = replace(info, calibration=extras["calibration"])
    temperature = temperature_of(info, source.word) if info.calibration and not tta else None
    loader = load(samples)
    measured, answers = measure_answers(network, loader, info.classes, temperature)
    if val is not None and len(info.classes) == 2:
        val_answers = answers
        if part != "val":
            val_loader = load(map_classes(val, info.classes))
            val_answers = measure_answers(network, val_loader, info.classes)[1]
        extras["thresholds"] = _recommend(val_answers, answers, part, precision, temperature)
    if is_imagenet:
        del measured["confusion"]  # a million numbers
    unreadable = unreadable_of(loader)
    left_out = [f"{samples.images[i]}: {unreadable.reason(i)}" for i in unreadable.indices()]
    told = {"unreadable": left_out, "notes": list(samples.notes)}
    results = {"checkpoint": source.word, "data": part, **measured, **extras, **told}
    if errors is not None:
        bad = set(unreadable.indices())
        kept = samples.subset(i for i in range(len(samples)) if i not in bad)
        names = name_images(kept.images, root_of)
        results["errors"] = save_errors(errors, kept, answers, names, results)
    return results


def _check_extras(
    source: Source, root: str | None, calibrate: bool, precision: float | None, tta: bool
) -> None:
    """Raises a UsageError for options that do not go together."""
    wanted = "--calibrate" if calibrate else "--precision"
    if not calibrate and precision is None:
        return
    if not source.is_checkpoint:
        raise UsageError(
            f"{wanted} takes a checkpoint in its run folder, and {source.word} is none"
        )
    if root is not None:
        raise UsageError(f"{wanted} measures on the run's own validation images; leave out --data")
    if calibrate and tta:
        raise UsageError("--calibrate: the temperature is fitted without --tta; leave one out")
    if precision is not None and len(source.info.classes) != 2:
        raise UsageError(
            f"--precision is for models of two classes, and {source.word} has "
            f"{len(source.info.classes)}"
        )


def _recommend(
    val: Answers, here: Answers, part: str, precision: float | None, temperature: float | None
) -> list[dict[str, Any]]:
    """Returns the thresholds for the best F1 and, if asked, for a precision."""
    found = [
        recommend_threshold(val, p) for p in (None, *([] if precision is None else [precision]))
    ]
    for row in found:
        if (threshold := row["threshold"]) is None:
            continue
        if part != "val":
            row["measured"] = rates_at(here, threshold)
        if temperature is not None:  # the same threshold on the logits
            odds = (threshold / (1 - threshold)) ** (1 / temperature)
            row["calibrated_threshold"] = odds / (1 + odds)
    return found


def _on_cpu(model: nn.Module, loader: DataLoader[Any]) -> list[tuple[Tensor, Tensor]]:
    return [(logits.cpu(), labels.cpu()) for logits, labels in classify(model, loader)]


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


def _own_images(source: Source, trusted: bool) -> tuple[str, Samples, Samples | None, str | None]:
    """Returns the part to measure, its images, the validation images, and the data set's root."""
    recipe = own_recipe(source, ClassificationRecipe, trusted)
    assert source.path is not None
    try:
        run_data = read_run_data(source.path.parent, source.info, source.content)
        parts = read_splits(recipe.data, run_data)
    except UserError as error:
        raise UserError(f"{error}; or name a folder with --data") from None
    part = "test" if "test" in parts else "val"
    return part, parts[part], parts.get("val"), recipe.data.root


def measure(model: nn.Module, loader: DataLoader[Any], classes: list[str]) -> dict[str, Any]:
    """Returns metrics, number of images and confusion matrix of a classifier on a loader."""
    return measure_answers(model, loader, classes)[0]


def measure_answers(
    model: nn.Module,
    loader: DataLoader[Any],
    classes: list[str],
    temperature: float | None = None,
) -> tuple[dict[str, Any], Answers]:
    """Measures a classifier on a loader.

    Args:
        model: Maps images to logits.
        loader: See `evaluation_loader`.
        classes: Names of the classes.
        temperature: Temperature for the metric "ece_calibrated", or None without it.

    Returns:
        Metrics, number of images, confusion matrix and bins of the reliability diagram; and the
        answers to the readable images, in order.
    """
    batches: list[tuple[Answers, Answers | None]] = []
    metrics = metrics_for(len(classes)).to(_device())
    count, loss = 0, 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchmetrics")  # undefined metrics become None
        for logits, labels in classify(model, loader):
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            update_metrics(metrics, logits, labels)
            batches.append(
                (
                    read_answers(logits, labels),
                    None if temperature is None else read_answers(logits, labels, temperature),
                )
            )
            count += len(labels)
        values = metrics.compute()
    confusion = values.pop("confusion").long()
    numbers = {"loss": loss / count, **{name: value.item() for name, value in values.items()}}
    numbers["balanced_accuracy"] = balanced_accuracy(confusion)
    answers = Answers.joined([found for found, _ in batches])
    numbers["ece"] = calibration_error(answers)
    if temperature is not None:
        scaled = Answers.joined([found for _, found in batches if found is not None])
        numbers["ece_calibrated"] = calibration_error(scaled)
    measured = {
        "images": count,
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in numbers.items()
        },
        "classes": classes,
        "recall": recalls(confusion),
        "confusion": confusion.tolist(),
    }
    return measured, answers


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
