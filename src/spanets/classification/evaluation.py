"""Measures a checkpoint or an exported file on labelled images."""

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spanets.classification.answers import Answers, calibration_error, read_answers
from spanets.classification.calibration import (
    calibrate_checkpoint,
    rates_at,
    recommend_threshold,
    temper,
    temperature_of,
)
from spanets.classification.errors import check_errors, report_answers
from spanets.classification.metrics import balanced_accuracy, metrics_for, recalls, update_metrics
from spanets.classification.ordinal import rank_metrics
from spanets.classification.recipe import ClassificationRecipe
from spanets.classification.views import COMBINED, average_views
from spanets.data.image_level.dataset import evaluation_loader, unreadable_of
from spanets.data.image_level.splits import read_splits
from spanets.data.loaders import plain_worker_errors
from spanets.data.ranks import current_rank, in_order
from spanets.data.run_data import read_run_data
from spanets.data.samples import Samples, map_classes
from spanets.data.sources.imagenet import has_imagenet_names, name_classes
from spanets.sources import Source, as_source
from spanets.training.mistakes import name_images
from spanets.training.named_images import named_images
from spanets.training.options import Views
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
    views: Views | None = None,
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
        views: Views of the images over which probabilities are averaged, or None.

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
    _check_extras(source, root, calibrate, precision, views)
    if errors is not None:
        check_errors(errors)
    recipe = info_recipe(source, ClassificationRecipe) if source.is_checkpoint else None
    try:
        images = choose_images(source, root, recipe, trusted)
    except UsageError as error:
        if not calibrate and precision is None:
            raise
        # Its advice, to name another data set, does not help here.
        wanted = "--calibrate" if calibrate else "--precision"
        raise UsageError(
            f"{wanted} reads the run's validation images, which only a checkpoint in its run "
            f"folder may choose, and {source.word} is elsewhere; add --trust-recipe to allow it"
        ) from error
    loader_of = partial(
        evaluation_loader,
        preprocessing=source.info.preprocessing,
        batch_size=batch_size,
        workers=workers,
        max_unreadable=0.0 if recipe is None else recipe.data.max_unreadable,
    )
    extras: dict[str, Any] = {} if views is None else {"tta": views.describe(COMBINED)}
    if calibrate:
        assert images.val is not None
        source, extras["calibration"] = _calibrate(source, loader_of(images.val))
    network = average_views(source, views)
    is_scaled = bool(source.info.calibration) and views is None
    temperature = temperature_of(source.info, source.word) if is_scaled else None
    loader = loader_of(images.samples)
    probabilities: list[NDArray[np.float32]] | None = None if errors is None else []
    measured, answers = measure_answers(
        network, loader, source.info.classes, temperature, probabilities
    )
    add_rank_metrics(measured, recipe)
    if images.val is not None and len(source.info.classes) == 2:
        val = answers
        if images.part != "val":
            val = measure_answers(network, loader_of(images.val), source.info.classes)[1]
        here = None if images.part == "val" else answers
        extras["thresholds"] = _recommend(val, here, precision, temperature)
    if has_imagenet_names(source.info.classes):
        del measured["confusion"]  # a million numbers
    unreadable = unreadable_of(loader)
    unreadable.gather()
    details = {"unreadable": unreadable.describe(), "notes": list(images.samples.notes)}
    results = {"checkpoint": source.word, "data": images.part, **measured, **extras, **details}
    kept = unreadable.readable()
    names = [] if errors is None else name_images(kept.images, images.root)
    scope = (
        f"only the {len(kept)} images of {images.part} were looked at; models look right on the "
        "images that they were trained on (a table's data.fold all looks at every image)"
    )
    view = source.preprocess.view
    report_answers(results, kept, names, answers, errors, probabilities, scope, view)
    return results


@dataclass(frozen=True)
class EvaluationImages:
    """The images to measure.

    Attributes:
        part: Name of the part of the run's data set, or the measured folder.
        samples: The images, with the classes of the model.
        val: The run's validation images, or None without its own data set.
        root: Folder of the data set, or None.
    """

    part: str
    samples: Samples
    val: Samples | None
    root: str | None


def choose_images(
    source: Source, root: str | None, recipe: ClassificationRecipe | None, trusted: bool
) -> EvaluationImages:
    """Lists the images of a folder or, without one, of the run's test part, or else "val"."""
    classes = source.info.classes
    if root is not None:
        part, samples = named_images(root, source, recipe)
        return EvaluationImages(part, _with_classes(samples, classes), None, root)
    if recipe is None:
        raise UsageError(f"{source.word} does not tell its test images; name a folder with --data")
    parts, root = own_parts(source, trusted)
    part = "test" if "test" in parts else "val"
    return EvaluationImages(
        part, _with_classes(parts[part], classes), _with_classes(parts["val"], classes), root
    )


def _with_classes(samples: Samples, classes: list[str]) -> Samples:
    if has_imagenet_names(classes):
        names, notes = name_classes(samples.classes)
        samples = replace(samples, classes=names, notes=(*samples.notes, *notes))
    return map_classes(samples, classes)


def _check_extras(
    source: Source, root: str | None, calibrate: bool, precision: float | None, views: Views | None
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
    if calibrate and views is not None:
        raise UsageError("--calibrate: the temperature is fitted without --tta; leave one out")
    if precision is not None and len(source.info.classes) != 2:
        raise UsageError(
            f"--precision is for models of two classes, and {source.word} has "
            f"{len(source.info.classes)}"
        )


def _calibrate(source: Source, loader: DataLoader[Any]) -> tuple[Source, dict[str, Any]]:
    """Fits a temperature, stores it, and returns the calibrated source and what was fitted."""
    batches = [(x.cpu(), labels.cpu()) for x, labels in classify(source.network, loader)]
    logits, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    fitted = calibrate_checkpoint(source, logits, labels, stored=current_rank().is_first)
    return replace(source, info=replace(source.info, calibration=fitted)), fitted


def _recommend(
    val: Answers, here: Answers | None, precision: float | None, temperature: float | None
) -> list[dict[str, Any]]:
    """Returns the thresholds for the best F1 and, if asked, for a precision.

    Args:
        val: Answers to the validation images.
        here: Answers to the measured images, unless these are the same.
        precision: See `evaluate`.
        temperature: Temperature of the model, or None.
    """
    goals = [None] if precision is None else [None, precision]
    found = [recommend_threshold(val, goal) for goal in goals]
    for row in found:
        if (threshold := row["threshold"]) is None:
            continue
        if here is not None:
            row["measured"] = rates_at(here, threshold)
        if temperature is not None:
            row["calibrated_threshold"] = temper(threshold, temperature)
    return found


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


def own_parts(source: Source, trusted: bool) -> tuple[dict[str, Samples], str | None]:
    """Returns the images of the run's own data set by part, and its root.

    Raises:
        UsageError: the checkpoint may not choose the data set.
        UserError: the data are missing or cannot be used.
    """
    recipe = own_recipe(source, ClassificationRecipe, trusted)
    assert source.path is not None
    try:
        run_data = read_run_data(source.path.parent, source.info, source.content)
        return read_splits(recipe.data, run_data), recipe.data.root
    except UserError as error:
        raise UserError(f"{error}; or name a folder with --data") from None


def measure(model: nn.Module, loader: DataLoader[Any], classes: list[str]) -> dict[str, Any]:
    """Returns metrics, number of images and confusion matrix of a classifier on a loader."""
    return measure_answers(model, loader, classes)[0]


def measure_answers(
    model: nn.Module,
    loader: DataLoader[Any],
    classes: list[str],
    temperature: float | None = None,
    probabilities: list[NDArray[np.float32]] | None = None,
) -> tuple[dict[str, Any], Answers]:
    """Measures a classifier on a loader; see `measure_batches`."""
    batches = classify(model, loader)
    return measure_batches(batches, classes, temperature, probabilities)


def measure_batches(
    found: Iterable[tuple[Tensor, Tensor]],
    classes: list[str],
    temperature: float | None = None,
    probabilities: list[NDArray[np.float32]] | None = None,
) -> tuple[dict[str, Any], Answers]:
    """Measures a classifier's answers.

    Args:
        found: Batches of logits (B, classes) and labels (B,).
        classes: Names of the classes.
        temperature: Temperature for the metric "ece_calibrated", or None without it.
        probabilities: A list to which the probabilities of each batch are appended, or None.

    Returns:
        Metrics, number of images, confusion matrix and bins of the reliability diagram; and the
        answers to the readable images, in order.
    """
    batches: list[tuple[Answers, Answers | None]] = []
    metrics = metrics_for(len(classes)).to(_device())
    count, loss = 0, 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchmetrics")  # undefined metrics become None
        for logits, labels in found:
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            update_metrics(metrics, logits, labels)
            batches.append(
                (
                    read_answers(logits, labels),
                    None if temperature is None else read_answers(logits, labels, temperature),
                )
            )
            if probabilities is not None:
                probabilities.append(logits.softmax(1).cpu().numpy())
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


def add_rank_metrics(measured: dict[str, Any], recipe: ClassificationRecipe | None) -> None:
    """Adds the metrics of ranks to those of `measure_batches`, if the classes have an order."""
    if recipe is not None and recipe.data.ordered is not None:
        ranked = rank_metrics(torch.tensor(measured["confusion"])).items()
        measured["metrics"] |= {name: x if math.isfinite(x) else None for name, x in ranked}


@torch.inference_mode()
def classify(model: nn.Module, loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields logits (B, classes), float32, and labels (B,), on a GPU if there is one.

    Within `shared_batches`, every process yields the batches of all, in the order of one process.
    """
    device = _device()
    model = model.to(device).eval()

    def compute(batch: list[Tensor]) -> tuple[Tensor, Tensor] | None:
        images, labels = batch
        if not len(labels):  # no image of the batch is readable
            return None
        return model(images.to(device)).float().cpu(), labels

    with plain_worker_errors():
        for found in in_order(loader, compute, "evaluate"):
            if found is not None:
                yield found[0].to(device), found[1].to(device)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
