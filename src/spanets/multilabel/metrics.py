"""Metrics of several labels an image, as scikit-learn computes them, in float64."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def average_precision(scores: Array, truth: Array) -> float:
    """Returns the average precision of one label, NaN if no image has it.

    The sum over thresholds of the precision, each times the recall it adds, without interpolation;
    equal scores share a threshold.

    Args:
        scores: (images,), larger for the label.
        truth: (images,), 1 for images with the label.
    """
    if not truth.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], truth[order].cumsum()
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


def best_threshold(probabilities: Array, truth: Array) -> float | None:
    """Returns the threshold with the best F1 of one label, or None if no image has it.

    An image gets the label if its probability is at least the threshold. The threshold lies in the
    middle between two images, so that rounding moves none across; of equal F1 the largest counts.

    Args:
        probabilities: (images,).
        truth: (images,), 1 for images with the label.
    """
    if not truth.any():
        return None
    values, places = np.unique(probabilities, return_inverse=True)
    chosen = np.bincount(places)[::-1].cumsum()[::-1]  # images at or above each value
    hits = np.bincount(places, truth)[::-1].cumsum()[::-1]
    f1 = 2 * hits / (chosen + truth.sum())
    best = int(np.flatnonzero(f1 >= f1.max() - 1e-12)[-1])
    below = values[best - 1] if best else 0.0
    return float((values[best] + below) / 2)


def rates(chosen: NDArray[np.bool_], truth: Array) -> dict[str, float]:
    """Returns precision, recall and F1; 0 where they are undefined, as in scikit-learn."""
    is_true = truth > 0
    hits, given, positive = (int(x.sum()) for x in (chosen & is_true, chosen, is_true))
    return {
        "precision": hits / given if given else 0.0,
        "recall": hits / positive if positive else 0.0,
        "f1": 2 * hits / (given + positive) if given + positive else 0.0,
    }


def measure(
    logits: Array, probabilities: Array, truth: Array, thresholds: Sequence[float]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measures all labels.

    Args:
        logits: (images, labels); average precision takes their order, which no rounding changes.
        probabilities: (images, labels).
        truth: (images, labels), of 0 and 1.
        thresholds: Threshold of each label.

    Returns:
        "map", the mean average precision; "f1_micro" and "f1_macro". Means are over the labels that
        an image has, and NaN without any. And for each label its number of images, threshold,
        average precision ("ap"), precision, recall and F1.
    """
    chosen = probabilities >= np.asarray(thresholds)
    rows = [
        {
            "images": int(truth[:, i].sum()),
            "threshold": float(threshold),
            "ap": average_precision(logits[:, i], truth[:, i]),
            **rates(chosen[:, i], truth[:, i]),
        }
        for i, threshold in enumerate(thresholds)
    ]
    present = [row for row in rows if row["images"]]
    metrics = {
        "map": _mean([row["ap"] for row in present]),
        "f1_micro": rates(chosen, truth)["f1"] if present else math.nan,
        "f1_macro": _mean([row["f1"] for row in present]),
    }
    return metrics, rows


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
