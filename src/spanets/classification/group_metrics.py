"""Metrics for each group of images, such as a patient or a plant, which a table's column names."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spanets.classification.answers import Answers
from spanets_runtime.student import student_quantile

SHOWN = 10
"""Number of groups in the text; --json lists all."""

_Z = 1.959963984540054  # quantile 0.975 of the normal distribution


def measure_groups(groups: Sequence[str], answers: Answers) -> dict[str, Any]:
    """Returns accuracy, balanced accuracy and number of images of each group, the worst first.

    Groups of one image come last.

    Args:
        groups: The group of each of the N images.
        answers: The N answers.

    Returns:
        "groups", a list of "group", "images", "accuracy", its 95 % interval "low" and "high"
        (Wilson), and "balanced_accuracy", the mean recall of the classes that the group has; the
        name of the "worst"; and the 95 % interval of the accuracy of all images, for which whole
        groups count as drawn ("low", "high"; None with one group).
    """
    names, places = np.unique(np.asarray(groups, object), return_inverse=True)
    order = np.argsort(places, kind="stable")
    borders = np.searchsorted(places[order], np.arange(len(names) + 1))
    rows = [
        _measure(str(name), answers, order[a:b])
        for name, a, b in zip(names, borders[:-1], borders[1:], strict=True)
    ]
    # One image is no measure of a group: its accuracy is 0 or 1.
    rows.sort(key=lambda r: (r["images"] == 1, r["accuracy"], -r["images"], r["group"]))
    low, high = clustered_interval(
        np.bincount(places, answers.right, len(names)), np.bincount(places, minlength=len(names))
    )
    return {"groups": rows, "worst": rows[0]["group"], "low": low, "high": high}


def _measure(name: str, answers: Answers, members: np.ndarray) -> dict[str, Any]:
    right, truth = answers.right[members], answers.truth[members]
    recalls = [right[truth == label].mean() for label in np.unique(truth)]
    low, high = wilson_interval(int(right.sum()), len(members))
    return {
        "group": name,
        "images": len(members),
        "accuracy": float(right.mean()),
        "low": low,
        "high": high,
        "balanced_accuracy": float(np.mean(recalls)),
    }


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion (Wilson, 1927), for one image or more."""
    share, extra = hits / count, _Z**2 / count
    centre = (share + extra / 2) / (1 + extra)
    half = _Z / (1 + extra) * math.sqrt(share * (1 - share) / count + extra / count / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_interval(
    hits: np.ndarray, counts: np.ndarray
) -> tuple[float, float] | tuple[None, None]:
    """Returns the 95 % interval of hits over counts, summed over groups that are drawn whole.

    It is that of a ratio estimator with Student's t (Cochran, Sampling Techniques, section 6.3):
    images of one group resemble each other, so the interval is wider than for single images.

    Args:
        hits: Right answers of each of G groups.
        counts: Images of each.
    """
    number, total = len(counts), counts.sum()
    if number < 2:
        return None, None
    share = hits.sum() / total
    spread = ((hits - share * counts) ** 2).sum()
    error = math.sqrt(number / (number - 1) * spread) / total
    half = student_quantile(0.975, number - 1) * error
    return max(0.0, float(share - half)), min(1.0, float(share + half))


def describe_groups(found: Mapping[str, Any]) -> list[str]:
    """Returns the results of `measure_groups` as lines: the worst group, then a table."""
    rows = found["groups"]
    images = sum(row["images"] for row in rows)
    lines = [f"  {len(rows)} groups of {images} images, the worst is {found['worst']}"]
    if found["low"] is not None:
        lines[0] += f"; accuracy of new groups {found['low']:.4f} to {found['high']:.4f} (95 %)"
    shown = rows[:SHOWN]
    if len(rows) > len(shown):
        lines.append(f"  the {len(shown)} groups of lowest accuracy; --json lists all:")
    wide = max(len(row["group"]) for row in shown)
    for row in shown:
        lines.append(
            f"  group {row['group']:{wide}} accuracy {row['accuracy']:.3f} "
            f"({row['low']:.3f} to {row['high']:.3f}), balanced "
            f"{row['balanced_accuracy']:.3f} ({row['images']} images)"
        )
    return lines
