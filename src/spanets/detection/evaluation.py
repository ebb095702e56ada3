"""Measures a detector's checkpoint on annotated images."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spanets.data.loaders import plain_worker_errors
from spanets.data.ranks import current_rank, in_order
from spanets.data.run_data import read_run_data
from spanets.detection import has_masks, keypoints_of
from spanets.detection.data import describe_unseen, evaluation_loader
from spanets.detection.errors import check_errors, save_errors
from spanets.detection.matching import add_missed, count_kinds, match, recommend
from spanets.detection.metrics import DetectionMetrics, flatten
from spanets.detection.module import find_objects
from spanets.detection.network.batching import Target
from spanets.detection.reading import read_part
from spanets.detection.recipe import DetectionData, DetectionRecipe
from spanets.detection.views import COMBINED, augment
from spanets.formats.coco.objects import (
    CocoData,
    check_keypoints,
    map_classes,
    match_keypoints,
)
from spanets.formats.coco.results import Result
from spanets.recipe.trust import FLAG
from spanets.sources import Source, as_source
from spanets.training.options import Views
from spanets.training.own_data import info_recipe, own_recipe, recipe_beside
from spanets_runtime.errors import UsageError


def evaluate(
    source: Source | str | Path,
    root: str | None = None,
    workers: int = 2,
    batch_size: int = 2,
    trusted: bool = False,
    *,
    errors: Path | None = None,
    score: float | None = None,
    precision: float | None = None,
    views: Views | None = None,
) -> dict[str, Any]:
    """Measures a checkpoint on the validation part of a data set in COCO's format.

    Args:
        source: A checkpoint or its path.
        root: A data set folder with the recipe's layout; None means the recipe's data set.
        workers: Number of worker processes.
        batch_size: Images loaded together; the detector processes them one by one.
        trusted: Whether the checkpoint's recipe may choose the data set; see `own_data`.
        errors: Folder for a page of mistakes and a table of all detections, or None.
        score: Lowest score of the detections whose mistakes are counted; None means the threshold
            of the best F1.
        precision: Precision for which thresholds are recommended, besides those of the best F1.
        views: The views that are merged, see `views.Augmented`; None takes only the image.

    Returns:
        Metrics by name (`box_ap`, …; None if undefined), also by class, number of images, classes,
        recommended thresholds, number of mistakes of each kind, and notes about skipped
        annotations.

    Raises:
        UsageError: the checkpoint may not choose the data set.
        UserError: the checkpoint cannot be read, or the data do not fit it.
    """
    if errors is not None:
        check_errors(errors)
    source = as_source(source)
    info = source.info
    keypoints = keypoints_of(info.head)
    truth = read_truth(source, root, trusted, keypoints is not None)
    if keypoints is not None:
        check_keypoints(truth)
        truth = match_keypoints(truth, keypoints)
    loader = evaluation_loader(truth, info.preprocessing, batch_size, workers)
    network = source.network
    if views is not None:
        network = augment(network, info.head, views)
    sigma = data_of(source, root, trusted).keypoint_sigma
    metrics = detect(network, loader, truth, has_masks(info.head["kind"]), sigma)
    measured = metrics.measure()
    matches = match(truth, metrics.results)
    thresholds = recommend(truth, matches, precision)
    if score is None:
        score = thresholds[0]["threshold"] or 0.0
    counted = add_missed(truth, matches, score)
    results = {
        "checkpoint": source.word,
        "data": "val" if root is None else root,
        "images": len(truth.images),
        "metrics": _defined(flatten(measured)),
        "by_class": {
            kind: {name: _defined(values) for name, values in found.by_class.items()}
            for kind, found in measured.items()
        },
        "classes": info.classes,
        "thresholds": thresholds,
        "mistakes": {"score": score, **count_kinds(counted)},
        **({} if views is None else {"tta": views.describe(COMBINED)}),
        "notes": [*truth.notes, *filter(None, [describe_unseen(truth, info.preprocessing)])],
    }
    if errors is not None and current_rank().is_first:
        results["errors"] = save_errors(errors, truth, matches, counted, results)
    return results


def read_truth(source: Source, root: str | None, trusted: bool, keypoints: bool) -> CocoData:
    """Reads the validation part, with the classes of the checkpoint; see `evaluate`.

    Images of the run's own folder keep the part that they had in training. Of another folder
    without such a part, all images are measured.
    """
    data, run_data = data_of(source, root, trusted), None
    own = info_recipe(source, DetectionRecipe).data.root
    is_own = root is None or _is_same(root, own)
    if source.path is not None and is_own:
        run_data = read_run_data(source.path.parent, source.info, source.content)
    found = read_part(data, "val", keypoints, run_data, draw=is_own)
    return map_classes(found, source.info.classes)


def data_of(source: Source, root: str | None, trusted: bool) -> DetectionData:
    """Returns the data section of the data set to measure; see `evaluate`."""
    if root is None:
        return own_recipe(source, DetectionRecipe, trusted).data
    recipe = info_recipe(source, DetectionRecipe)
    data = replace(recipe.data, root=root)
    trusted = trusted or recipe_beside(source.path, recipe) is not None
    for key in ("val_annotations", "val_images"):
        if not (trusted or _is_below(getattr(data, key))):
            raise UsageError(
                f"{source.word}: in its recipe data.{key} is {getattr(data, key)!r}, which leaves "
                f"the folder of --data; add {FLAG} if you trust the checkpoint"
            )
    return data


def _is_same(folder: str, other: str | None) -> bool:
    """Whether two paths are one folder."""
    return other is not None and os.path.realpath(folder) == os.path.realpath(other)


def _is_below(location: str) -> bool:
    """Whether a relative path stays below its folder."""
    path = Path(location)
    return not path.is_absolute() and ".." not in path.parts


def measure(
    model: nn.Module, loader: DataLoader[Any], truth: CocoData, masks: bool
) -> dict[str, float | None]:
    """Returns COCO's average precisions of a detector, on a loader of the images of `truth`."""
    return _defined(detect(model, loader, truth, masks).compute())


@torch.inference_mode()
def detect(
    model: nn.Module,
    loader: DataLoader[Any],
    truth: CocoData,
    masks: bool,
    sigma: float | None = None,
) -> DetectionMetrics:
    """Returns the detections of a detector, on a loader of the images of `truth`.

    Within `shared_batches`, every process returns the detections of all.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    metrics = DetectionMetrics(truth, masks, sigma=sigma)

    def compute(batch: tuple[list[Tensor], list[Target]]) -> dict[int, list[Result]]:
        images, targets = batch
        found = find_objects(model, [image.to(device) for image in images], targets)
        return metrics.describe(targets, found)

    with plain_worker_errors():
        for results in in_order(loader, compute, "evaluate"):
            metrics.results.update(results)
    return metrics


def _defined(values: Mapping[str, float]) -> dict[str, float | None]:
    return {k: None if math.isnan(v) else round(v, 6) for k, v in values.items()}
