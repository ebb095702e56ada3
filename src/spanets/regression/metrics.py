"""Metrics of estimated numbers, as scikit-learn and scipy compute them, in float64."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NAMES = ("mae", "rmse", "r2", "spearman")


def measure_one(predicted: Array, true: Array) -> dict[str, float]:
    """Returns mean absolute error, root mean squared error, R² and Spearman's rank correlation.

    R² is 1 - the squared error over that of the mean of the true numbers. It is NaN, like the
    correlation, if all true numbers are equal.

    Args:
        predicted: (images,).
        true: (images,).
    """
    errors, spread = predicted - true, ((true - true.mean()) ** 2).sum()
    is_constant = (true == true[:1]).all()  # its spread may not be 0, because the mean is rounded
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "r2": float(1 - (errors**2).sum() / spread) if spread and not is_constant else math.nan,
        "spearman": spearman(predicted, true),
    }


def spearman(first: Array, second: Array) -> float:
    """Returns the correlation of the ranks of two lists; NaN if one is constant."""
    a, b = (ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale else math.nan


def ranks(values: Array) -> Array:
    """Returns the rank of each value, from 1; equal values have the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def measure(
    predicted: Array, true: Array, names: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measures all numbers.

    Args:
        predicted: (images, names).
        true: (images, names).
        names: Names of the numbers.

    Returns:
        The metrics of the only number, or of several the means of "r2" and "spearman", since errors
        in different units have no mean; and the metrics of each by name.
    """
    each = {name: measure_one(predicted[:, i], true[:, i]) for i, name in enumerate(names)}
    if len(names) == 1:
        return each[names[0]], each
    means = {key: float(np.mean([row[key] for row in each.values()])) for key in NAMES[2:]}
    return means, each
