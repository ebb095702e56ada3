"""Measures a segmenter on images with masks."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spanets.checkpoint import ModelInfo
from spanets.data.class_lists import clean_name
from spanets.data.loaders import plain_worker_errors
from spanets.data.ranks import current_rank, in_order
from spanets.data.run_data import read_run_data
from spanets.segmentation.data import check_parts, evaluation_loader, read_parts
from spanets.segmentation.errors import check_errors, describe_image, save_errors
from spanets.segmentation.labels import label_map
from spanets.segmentation.masks.reading import MaskedImages
from spanets.segmentation.metrics import class_ious, make_confusion, summarise
from spanets.segmentation.predict import MaskPredictor
from spanets.segmentation.recipe import SegmentationRecipe
from spanets.segmentation.views import COMBINED, infer_views
from spanets.sources import Source, as_source
from spanets.training.options import Views
from spanets.training.own_data import info_recipe, own_recipe
from spanets_runtime.errors import UserError


def evaluate(
    source: Source | str | Path,
    root: str | None = None,
    workers: int = 2,
    batch_size: int = 1,
    trusted: bool = False,
    *,
    errors: Path | None = None,
    views: Views | None = None,
) -> dict[str, Any]:
    """Measures a checkpoint on images with masks.

    Args:
        source: A checkpoint or its path.
        root: A folder with the layout of the training data; None means the training data set. The
            part "test" is measured, else "val", else all images.
        workers: Number of worker processes.
        batch_size: Without effect: images differ in size and are measured one by one.
        trusted: Whether the checkpoint's recipe may choose the data set; see `own_data`.
        errors: Folder for a page of mistakes and a table of all images, or None.
        views: The views that are averaged, see `infer_views`; None takes only the image.

    Returns:
        Metrics by name, IoU by class, number of images, confusion matrix in pixels (rows:
        truth), and notes. A value that the images do not define is None.

    Raises:
        UsageError: the checkpoint may not choose the data set.
        UserError: the checkpoint cannot be read, or the data do not fit it.
    """
    if errors is not None:
        check_errors(errors)
    source = as_source(source)
    part, samples = evaluation_images(source, root, trusted)
    # One part alone may not show what 255 means; training looked at all of them.
    notes = check_parts({part: samples}, is_training=False, is_known=root is None)
    loader = evaluation_loader(samples, source.info.preprocessing, workers)
    of_images: list[Tensor] | None = None if errors is None else []
    measured = measure(source.network, loader, source.info, views, of_images)
    data = part if root is None else f"{root} ({part})"
    tta = {} if views is None else {"tta": views.describe(COMBINED)}
    results = {"checkpoint": source.word, "data": data, **measured, **tta, "notes": list(notes)}
    if errors is not None and current_rank().is_first:
        assert of_images is not None
        predictor = MaskPredictor(source, views=views)
        results["errors"] = save_errors(errors, samples, of_images, predictor.label, results)
    return results


def evaluation_images(
    source: Source, root: str | None = None, trusted: bool = False
) -> tuple[str, MaskedImages]:
    """Returns the part that a checkpoint is measured on, and its images; see `evaluate`."""
    info, path = source.info, source.path
    assert path is not None
    if root is None:
        recipe = own_recipe(source, SegmentationRecipe, trusted)
    else:
        recipe = info_recipe(source, SegmentationRecipe)
    data = recipe.data if root is None else replace(recipe.data, root=root, num_classes=None)
    names = None if root is None else info.classes
    try:
        run_data = read_run_data(path.parent, info, source.content) if root is None else None
        parts = read_parts(data, split=root is None, classes=names, run_data=run_data)
    except UserError as error:
        raise type(error)(f"{error}{'' if root else '; or name a folder with --data'}") from None
    part = next(name for name in ("test", "val", *parts) if name in parts)
    samples = parts[part]
    # Earlier versions kept invisible characters in names.
    if [clean_name(name) for name in info.classes] != samples.classes:
        raise UserError(
            f"{data.root}: its classes are {_list(samples.classes)}, those of {path} "
            f"{_list(info.classes)}"
        )
    return part, replace(samples, classes=info.classes)


def _list(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")


@torch.inference_mode()
def measure(
    model: nn.Module,
    loader: DataLoader[Any],
    info: ModelInfo,
    views: Views | None = None,
    of_images: list[Tensor] | None = None,
) -> dict[str, Any]:
    """Returns metrics, number of images and confusion matrix of a segmenter on a loader.

    Args:
        model: The segmenter.
        loader: See `evaluation_loader`.
        info: Metadata of the model.
        views: See `evaluate`.
        of_images: A list to which `describe_image` of each image is added, or None.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, confusion = model.to(device).eval(), make_confusion(len(info.classes)).to(device)

    def compute(batch: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        images, masks = batch
        logits = infer_views(model, images.to(device), info.preprocessing, views)
        labels, truth = label_map(logits, *masks.shape[1:]), masks[0].to(device)
        confusion.reset()
        confusion.update(labels, truth)
        own = confusion.compute().cpu()
        if of_images is None:
            return own, None
        return own, describe_image(labels, truth, len(info.classes)).cpu()

    counts, images = torch.zeros(len(info.classes), len(info.classes), dtype=torch.int64), 0
    with plain_worker_errors():
        for own, described in in_order(loader, compute, "evaluate"):
            counts += own
            images += 1
            if of_images is not None and described is not None:
                of_images.append(described)
    ious = dict(zip(info.classes, class_ious(counts).tolist(), strict=True))
    return {
        "images": images,
        "metrics": _defined(summarise(counts)),
        "iou": _defined(ious),
        "classes": info.classes,
        "confusion": counts.tolist(),
    }


def _defined(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
