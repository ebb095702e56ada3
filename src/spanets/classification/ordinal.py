"""Classes with an order, such as grades: their numbering, and metrics of ranks."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spanets.data.class_names import compare_classes
from spanets.data.samples import Samples, map_classes
from spanets_runtime.errors import UsageError


def order_classes(
    parts: Mapping[str, Samples], ordered: Sequence[str], origin: str | None
) -> dict[str, Samples]:
    """Numbers the classes of all parts in the order of their ranks.

    Args:
        parts: Images by part.
        ordered: The classes from the lowest to the highest rank.
        origin: Name of the data set, for messages.

    Raises:
        UsageError: the data set has other classes.
    """
    names = parts["train"].classes
    if different := compare_classes(sorted(names), sorted(ordered)):
        raise UsageError(
            f"data.ordered does not name the {len(names)} classes of {origin}: {different}; they "
            f"are {', '.join(names[:20])}"
        )
    note = f"{origin}: classes are numbered in the order of data.ordered: {' < '.join(ordered)}"
    found = {part: map_classes(samples, list(ordered)) for part, samples in parts.items()}
    return {part: samples.noted([note]) for part, samples in found.items()}


def rank_metrics(confusion: Tensor) -> dict[str, float]:
    """Returns metrics of classes with an order, from a confusion matrix (rows: truth).

    Returns:
        "rank_mae", the mean difference of the ranks; and "kappa_quadratic", Cohen's kappa with
        quadratic weights, NaN if truth and answers are all of one class.
    """
    counts = confusion.double()
    ranks = torch.arange(len(counts), dtype=torch.float64, device=counts.device)
    distance, total = (ranks[:, None] - ranks).abs(), counts.sum()
    expected = counts.sum(1)[:, None] * counts.sum(0) / total
    chance = (distance**2 * expected).sum()
    kappa = 1 - (distance**2 * counts).sum() / chance if chance > 0 else torch.tensor(math.nan)
    return {
        "rank_mae": float((distance * counts).sum() / total),
        "kappa_quadratic": float(kappa),
    }
