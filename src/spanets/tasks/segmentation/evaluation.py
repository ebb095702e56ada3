"""Measures a segmenter on images with masks."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from spanets.checkpoint import Card, restore_model
from spanets.data.loaders import plain_worker_errors
from spanets.data.segmentation import evaluation_loader, read_parts
from spanets.data.sources.masks import MaskedImages
from spanets.recipe import SegmentationData, SegmentationRecipe, parse_recipe
from spanets.segmentation import infer
from spanets.segmentation.labels import label_map
from spanets.tasks.kept import kept_of
from spanets.tasks.segmentation.metrics import class_ious, make_confusion, summarise
from spanets.weights import WeightsError
from spanets_runtime.errors import UserError


def evaluate(
    path: Path, root: str | None = None, workers: int = 2, batch_size: int = 1
) -> dict[str, Any]:
    """Measures a checkpoint on images with masks.

    Args:
        path: A checkpoint with its card.
        root: A folder laid out as that of the training images; None takes that one. Its test part
            is measured, or where it has none its validation part, or all that there is.
        workers: Processes that load images.
        batch_size: Of no effect: images differ in size and are measured one by one.

    Returns:
        Metrics by name, each class's IoU, the number of images, and the confusion matrix (pixels,
        rows: truth). What the images do not define is None.

    Raises:
        UserError: an unreadable checkpoint, or data that does not fit it.
    """
    model, card = restore_model(path)
    part, samples = evaluation_images(path, card, root)
    loader = evaluation_loader(samples, card.preprocessing, workers)
    told = part if root is None else f"{root} ({part})"
    found = measure(model, loader, card)
    return {"checkpoint": str(path), "data": told, **found, "notes": list(samples.notes)}


def evaluation_images(path: Path, card: Card, root: str | None = None) -> tuple[str, MaskedImages]:
    """Returns the part that a checkpoint is measured on, and its images; see `evaluate`."""
    recipe = parse_recipe(card.recipe, origin=str(path))
    if not isinstance(recipe, SegmentationRecipe):
        raise WeightsError(f"{path}: damaged, its recipe is for {recipe.task}")
    try:
        kept = kept_of(path.parent, path, card) if root is None else None
        parts = read_parts(_data(recipe, card, root), split=root is None, kept=kept)
    except UserError as error:
        raise type(error)(f"{error}{'' if root else '; or name a folder with --data'}") from None
    part = next(name for name in ("test", "val", *parts) if name in parts)
    if parts[part].classes != card.classes:
        raise UserError(
            f"{root or recipe.data.root}: its classes are {_list(parts[part].classes)}, those of "
            f"{path} {_list(card.classes)}"
        )
    return part, parts[part]


def _data(recipe: SegmentationRecipe, card: Card, root: str | None) -> SegmentationData:
    """The settings of the training data, for another folder perhaps."""
    if root is None:
        return recipe.data
    named = (Path(root).expanduser() / "classes.txt").is_file()
    return replace(recipe.data, root=root, num_classes=None if named else len(card.classes))


def _list(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")


@torch.inference_mode()
def measure(model: nn.Module, loader: DataLoader[Any], card: Card) -> dict[str, Any]:
    """Returns metrics, number of images and confusion matrix of a segmenter on a loader."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, confusion = model.to(device).eval(), make_confusion(len(card.classes)).to(device)
    with plain_worker_errors():
        for images, masks in tqdm(loader, desc="evaluate", disable=None, leave=False):
            logits = infer(model, images.to(device), card.preprocessing)
            confusion.update(label_map(logits, *masks.shape[1:]), masks[0].to(device))
    counts = confusion.compute().cpu()
    ious = dict(zip(card.classes, class_ious(counts).tolist(), strict=True))
    return {
        "images": len(loader),
        "metrics": _defined(summarise(counts)),
        "iou": _defined(ious),
        "classes": card.classes,
        "confusion": counts.tolist(),
    }


def _defined(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
