"""Chooses a threshold of a score for the best F1, or for a precision."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def choose_threshold(
    scores: NDArray[np.float64],
    hits: NDArray[np.bool_],
    positives: int,
    precision: float | None = None,
) -> dict[str, Any]:
    """Returns the threshold with the best F1, or with a precision and the largest recall.

    The threshold lies in the middle between two scores, so that rounding moves none across. Answers
    with at least this score are chosen.

    Args:
        scores: Score of each answer, (N,).
        hits: Whether each answer is right, (N,).
        positives: Number of right answers that exist, found or not.
        precision: The smallest precision wanted; None means the best F1.

    Returns:
        "goal"; "threshold", or None if there is none; "precision", "recall" and "f1" there.
        Without a threshold, "precision" is the best that there is.
    """
    found: dict[str, Any] = {"goal": "f1" if precision is None else f"precision {precision:g}"}
    none = {"threshold": None, "precision": None, "recall": None, "f1": None}
    if not positives or not len(scores):
        return {**found, **none}
    values, places = np.unique(scores, return_inverse=True)
    at_least = np.bincount(places)[::-1].cumsum()[::-1]  # answers at or above each value
    right = np.bincount(places, hits)[::-1].cumsum()[::-1]
    rows = [rates(int(h), int(n), positives) for h, n in zip(right, at_least, strict=True)]
    if precision is None:
        best = max(range(len(rows)), key=lambda i: (rows[i]["f1"], i))
    else:
        fit = [i for i, row in enumerate(rows) if row["precision"] >= precision]
        if not fit:
            return {**found, **none, "precision": max(row["precision"] for row in rows)}
        best = max(fit, key=lambda i: (rows[i]["recall"], rows[i]["precision"], i))
    below = values[best - 1] if best else 0.0
    return {**found, "threshold": float((values[best] + below) / 2), **rows[best]}


def rates(hits: int, chosen: int, positives: int) -> dict[str, float]:
    """Returns precision, recall and F1; 0 where they are undefined, as in scikit-learn."""
    return {
        "precision": hits / chosen if chosen else 0.0,
        "recall": hits / positives if positives else 0.0,
        "f1": 2 * hits / (chosen + positives) if chosen + positives else 0.0,
    }


def describe_rates(found: Mapping[str, Any]) -> str:
    """Returns precision, recall and F1 as words."""
    return ", ".join(f"{name} {found[name]:.4f}" for name in ("precision", "recall", "f1"))
