"""Finds labels that are likely wrong, from probabilities of models that did not see the images.

This is confident learning: Northcutt, Jiang and Chuang (2021), "Confident Learning: Estimating
Uncertainty in Dataset Labels", sections 3.1 and 3.2. Each class has its own threshold, so a model
that is sure of one class and unsure of another is treated fairly.

Shapes: N images, K classes. Labels are (N,), probabilities (N, K).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-6
"""Probabilities are float32; an image that is as sure as the mean counts as confident."""

_CHUNK = 2**16  # rows that are compared at once, which bounds the memory


@dataclass(frozen=True)
class WrongLabels:
    """Images whose labels are likely wrong, the most likely first.

    Attributes:
        rows: Indices of the images.
        suggested: The class that each seems to have.
        margins: Probability of the given class minus the largest of another class, ascending.
        share: Estimated share of wrong labels among all images.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    margins: NDArray[np.float64]
    share: float


def class_thresholds(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> NDArray:
    """Returns the mean probability of each class over the images with its label (K,) (Eq. 2).

    A class without images has an infinite threshold: no image is confidently of this class.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def confident_classes(
    probabilities: NDArray[np.floating], thresholds: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Returns the most probable class that reaches its threshold (N,); -1 if none does (Eq. 1)."""
    found = np.full(len(probabilities), -1, np.int64)
    for start in range(0, len(probabilities), _CHUNK):
        chunk = probabilities[start : start + _CHUNK]
        reached = np.where(chunk >= thresholds - _ROUNDING, chunk, -1.0)
        best = reached.argmax(1)
        found[start : start + _CHUNK] = np.where(reached.max(1) >= 0, best, -1)
    return found


def confident_joint(
    labels: NDArray[np.int64], confident: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts images by given label (rows) and confident class (columns), (K, K) (Eq. 1)."""
    sure = confident >= 0
    places = labels[sure] * classes + confident[sure]
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def estimate_joint(joint: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the joint distribution of given and true labels (K, K), whose sum is 1 (Eq. 3).

    Args:
        joint: See `confident_joint`.
        counts: Number of images with each label (K,).
    """
    rows = joint.sum(1)
    scaled = joint * (counts / np.maximum(rows, 1))[:, None]
    # Without a confident image, nothing says that the labels of a class are wrong.
    np.fill_diagonal(scaled, np.where(rows > 0, scaled.diagonal(), counts))
    return scaled / scaled.sum()


def find_wrong_labels(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating]
) -> WrongLabels:
    """Returns the images outside the diagonal of the confident joint, by normalized margin.

    An image whose given label is its most probable class counts as right, even if its probability
    stays below the threshold of that class.

    Args:
        labels: The given labels of one image or more.
        probabilities: From models that were not trained on the image.
    """
    classes = probabilities.shape[1]
    confident = confident_classes(probabilities, class_thresholds(labels, probabilities))
    joint = confident_joint(labels, confident, classes)
    share = 1 - np.trace(estimate_joint(joint, np.bincount(labels, minlength=classes)))
    rows = np.flatnonzero((confident >= 0) & (confident != labels))
    others = probabilities[rows].astype(np.float64)
    given = others[np.arange(len(rows)), labels[rows]]
    others[np.arange(len(rows)), labels[rows]] = -1.0
    margins = given - others.max(1, initial=-1.0)
    order = np.argsort(margins, kind="stable")
    order = order[margins[order] < 0]
    rows = rows[order]
    return WrongLabels(rows, confident[rows], margins[order], max(0.0, float(share)))
