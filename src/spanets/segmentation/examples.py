"""What the page of a run shows of a segmenter: IoU by class, confusions, and images with masks."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spanets.segmentation.errors import describe_image, most_confused
from spanets.segmentation.evaluation import evaluation_images
from spanets.segmentation.masks.reading import MaskedImages
from spanets.segmentation.predict import MaskPredictor
from spanets.segmentation.report import draw_mask
from spanets.sources import Source
from spanets.training.mistakes import name_images
from spanets.training.options import EvalOptions
from spanets.training.report_parts import (
    Example,
    Examples,
    Scatter,
    Table,
    describe_images,
    rank,
)
from spanets_runtime.errors import UserError
from spanets_runtime.images import load_image
from spanets_runtime.listing import spread_evenly
from spanets_runtime.masks import overlay
from spanets_runtime.progress import progress

MOST_IMAGES, SHOWN = 24, 4
"""Largest number of images that are predicted, and of best and of worst ones."""


def report_results(results: Mapping[str, Any]) -> list[Table | Scatter]:
    """Returns the IoU of each class, and the classes that are confused most."""
    rows = sorted(results["iou"].items(), key=lambda row: (row[1] is None, row[1] or 0.0))
    tables: list[Table | Scatter] = [
        Table("IoU by class", ["class", "IoU"], [list(row) for row in rows], "Lowest first.")
    ]
    classes, confusion = results["classes"], np.array(results["confusion"], np.int64)
    pairs = [
        [classes[truth], classes[predicted], count, f"{share:.1%}"]
        for truth, predicted, count, share in most_confused(confusion)
    ]
    if pairs:
        header = ["truth", "taken for", "pixels", "of the truth"]
        tables.append(Table("Most frequent confusions", header, pairs))
    return tables


def find_examples(source: Source, options: EvalOptions) -> Examples:
    """Returns the images of highest and of lowest mean IoU, with truth and prediction.

    Raises:
        UserError: the images cannot be read.
    """
    part, samples = evaluation_images(source, options.root, options.trusted)
    predictor, started = MaskPredictor(source), time.monotonic()
    chosen = spread_evenly(range(len(samples)), MOST_IMAGES)
    found = [_measure(predictor, samples, i) for i in progress(chosen, "choose examples")]
    seconds = time.monotonic() - started
    scores = np.array([score for score, _ in found])
    if not np.isfinite(scores).any():
        raise UserError(f"{part}: no readable image with a labelled pixel")
    names = name_images(samples.images, None)

    def show(place: int) -> Example:
        row, (score, guess) = chosen[place], found[place]
        image = load_image(samples.images[row])
        truth = samples.load_mask(row, (image.height, image.width))
        count = len(samples.classes)
        assert guess is not None
        pictures = {
            "truth": draw_mask(image, truth, count),
            "prediction": overlay(image, guess, count),
        }
        lines = [("", names[row].rsplit("/", 1)[-1]), ("", f"mean IoU {score:.3f}")]
        return Example(names[row], pictures, lines)

    best, worst = rank(scores, SHOWN)
    order = "They are in the order of the mean IoU of their classes. Black pixels are not counted."
    about = describe_images(len(chosen), len(samples), part, order)
    images = [samples.images[i] for i in chosen]
    return Examples(about, list(map(show, best)), list(map(show, worst)), images, seconds)


def _measure(
    predictor: MaskPredictor, samples: MaskedImages, index: int
) -> tuple[float, NDArray[np.uint8] | None]:
    """Returns the mean IoU and the predicted classes of an image, or NaN if it is unreadable."""
    try:
        image = load_image(samples.images[index])
        truth = samples.load_mask(index, (image.height, image.width))
    except UserError:
        return float("nan"), None
    guess = predictor.label(image)
    labels, known = (torch.from_numpy(mask.astype(np.int64)) for mask in (guess, truth))
    ious = describe_image(labels, known, len(samples.classes))[:-3].numpy()
    defined = ious[np.isfinite(ious)]
    return (float(defined.mean()) if defined.size else float("nan")), guess
