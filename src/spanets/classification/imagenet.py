"""Measures a classifier on ImageNet's evaluation sets by their authors' protocols."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spanets.checkpoint import ModelInfo
from spanets.classification.evaluation import as_classifier, classify, measure
from spanets.classification.views import COMBINED, average_views
from spanets.data.corruptions import KINDS, SEVERITIES
from spanets.data.image_level.dataset import evaluation_loader
from spanets.data.samples import Samples
from spanets.data.sources.imagenet import (
    LAYOUTS,
    find_layout,
    has_imagenet_names,
    scan_classes,
    scan_corrupted,
    scan_reassessed,
    wordnet_ids,
)
from spanets.data.sources.table import is_table
from spanets.sources import Source
from spanets.training.options import EvalOptions, Views
from spanets_runtime.errors import UsageError, nearest

# Makes a loader from samples and preprocessing.
Load = Callable[[Samples, Mapping[str, Any]], DataLoader[Any]]

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's errors on ImageNet-C, averaged over severities, as published by Hendrycks & Dietterich
(ICLR 2019). Corruption errors are relative to them."""

NORMALISER = "AlexNet's errors as published with ImageNet-C"


class _Restricted(nn.Module):
    """A classifier restricted to some of its classes.

    Args:
        model: Maps images to logits (B, all classes).
        kept: Indices of the kept classes, in output order.
    """

    def __init__(self, model: nn.Module, kept: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("kept", torch.tensor(kept))

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, kept classes)."""
        return self.model(images)[:, self.get_buffer("kept")]


def choose_layout(source: Source, root: str | None, layout: str | None) -> str | None:
    """Returns the given or recognised layout of a folder, or None for any other data set.

    Raises:
        UsageError: the layout is unknown, or given without a folder.
        UserError: the checkpoint or folder cannot be read.
    """
    if layout is not None and layout not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise UsageError(f"--layout is {layout!r}, allowed: {known}{nearest(layout, LAYOUTS)}")
    if root is None:
        if layout is not None:
            raise UsageError(f"--layout {layout} needs a folder: --data DIR")
        return None
    if layout is None and is_table(root):
        return None
    return layout or find_layout(root, _with_ids(source).info.classes)


def refuse_extras(options: EvalOptions, layout: str) -> None:
    """Raises a UsageError for options that need the run's validation images, or one label each."""
    for name in ("errors", "calibrate", "precision"):
        if getattr(options, name) not in (None, False):
            raise UsageError(
                f"--{name} is not for ImageNet's evaluation sets, and this is {layout}"
            )


def _with_ids(source: Source) -> Source:
    """Returns a model whose classes have ImageNet's names with WordNet ids in their place."""
    if not has_imagenet_names(source.info.classes):
        return source
    return replace(source, info=replace(source.info, classes=list(wordnet_ids())))


def evaluate_layout(
    source: Source | str | Path,
    root: str,
    layout: str,
    workers: int = 2,
    batch_size: int = 64,
    views: Views | None = None,
) -> dict[str, Any]:
    """Measures a checkpoint or an exported file on one of `spanets.data.sources.imagenet.LAYOUTS`.

    Returns:
        "images", "metrics" by name and "notes"; and by layout the number of "skipped" images
        without labels, the number of "classes" to choose from, or errors by "kinds" of corruption.

    Raises:
        UserError: the checkpoint cannot be read or lacks classes, or the layout is wrong.
    """
    source = _with_ids(as_classifier(source))
    model, info = average_views(source, views), source.info
    load = partial(evaluation_loader, batch_size=batch_size, workers=workers)
    if layout == "imagenet-real":
        found = _measure_reassessed(model, info, root, load)
    elif layout == "imagenet-c":
        found = _measure_corrupted(model, info, root, load)
    else:
        found = _measure_classes(model, info, root, layout, load)
    tta = {} if views is None else {"tta": views.describe(COMBINED)}
    return {"checkpoint": source.word, "data": root, "layout": layout, **tta, **found}


def _measure_classes(
    model: nn.Module, info: ModelInfo, root: str, layout: str, load: Load
) -> dict[str, Any]:
    samples = scan_classes(root, layout, info.classes)
    restricted = _Restricted(model, [info.classes.index(name) for name in samples.classes])
    found = measure(restricted, load(samples, info.preprocessing), samples.classes)
    # Without the confusion matrix, which has a million entries for a thousand classes.
    parts = {name: found[name] for name in ("images", "metrics")}
    return {**parts, "classes": len(samples.classes), "notes": list(samples.notes)}


def _measure_reassessed(model: nn.Module, info: ModelInfo, root: str, load: Load) -> dict[str, Any]:
    """Measures accuracy, counting any of an image's labels as right."""
    samples, accepted, skipped = scan_reassessed(root, info.classes)
    answers: list[int] = []
    for logits, _ in classify(model, load(samples, info.preprocessing)):
        answers += logits.argmax(1).tolist()
    right = [answer in labels for answer, labels in zip(answers, accepted, strict=True)]
    metrics = {"accuracy": sum(right) / len(right)}
    notes = list(samples.notes)
    return {"images": len(right), "metrics": metrics, "skipped": skipped, "notes": notes}


def _measure_corrupted(model: nn.Module, info: ModelInfo, root: str, load: Load) -> dict[str, Any]:
    """Measures errors by kind and severity, without cropping: the images are already crops."""
    preprocessing = {**info.preprocessing, "crop_pct": 1.0}
    errors: dict[str, dict[str, float]] = {}
    images, notes = 0, dict[str, None]()  # in order
    for kind, severities in scan_corrupted(root, info.classes).items():
        for severity, samples in severities.items():
            found = measure(model, load(samples, preprocessing), samples.classes)
            errors.setdefault(kind, {})[str(severity)] = 1 - found["metrics"]["accuracy"]
            images += found["images"]
            notes |= dict.fromkeys(samples.notes)
    return {"images": images, **summarise_corruptions(errors), "notes": list(notes)}


def summarise_corruptions(errors: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Averages errors over severities and, if complete, over the 15 kinds.

    Args:
        errors: Errors by kind and severity ("1" to "5").

    Returns:
        "metrics": mean error and mCE, or None if errors are missing; "kinds": by kind, errors by
        severity, their mean, and that mean over AlexNet's; "normaliser": the reference of mCE.
    """
    complete = all(len(errors.get(kind, ())) == len(SEVERITIES) for kind in KINDS)
    kinds: dict[str, dict[str, Any]] = {}
    for kind, row in errors.items():
        kinds[kind] = {"errors": dict(row), "error": mean(row.values())}
        if kind in ALEXNET_ERRORS and len(row) == len(SEVERITIES):
            kinds[kind]["ce"] = kinds[kind]["error"] / ALEXNET_ERRORS[kind]
    metrics = {
        "error": mean(kinds[kind]["error"] for kind in KINDS) if complete else None,
        "mce": mean(kinds[kind]["ce"] for kind in KINDS) if complete else None,
    }
    return {"metrics": metrics, "kinds": kinds, "normaliser": NORMALISER}


def describe_layout(results: Mapping[str, Any]) -> str:
    """Returns the results of `evaluate_layout` as readable lines."""
    skipped = f", {results['skipped']} without labels skipped" if "skipped" in results else ""
    lines = [
        f"{results['checkpoint']} on {results['data']} "
        f"({results['layout']}, {results['images']} images{skipped})"
    ]
    lines += [f"  {results['tta']}"] if "tta" in results else []
    for name, value in results["metrics"].items():
        lacking = (
            "undefined: needs all 15 kinds at 5 severities" if "kinds" in results else "undefined"
        )
        lines.append(f"  {name:18} {lacking if value is None else f'{value:.4f}'}")
    for kind, row in results.get("kinds", {}).items():
        shown = "  ".join(f"{severity}: {error:.3f}" for severity, error in row["errors"].items())
        lines.append(f"  {kind:18} {row['error']:.4f}  ({shown})")
    if "kinds" in results:
        lines.append(f"  errors by kind and severity; mce is relative to {results['normaliser']}")
    if results.get("classes", 1000) < 1000:
        lines.append(f"  answers restricted to the {results['classes']} classes of this set")
    return "\n".join(lines)
