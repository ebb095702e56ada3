"""Statistics of several labels an image, and of numbers: counts, and what looks odd.

`Listed.targets` holds them: 0 and 1 for each label, or numbers, NaN for a missing one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from spanets.data.sources.labelled import Listed
from spanets.data.statistics.findings import Groups, counted, describe_classes, parts_of

_MOST_PAIRS = 100
_BLOCK = 256  # labels whose pairs are counted at once
_FAR = 10  # interquartile ranges

NUMBERS = ("count", "missing", "mean", "std", "min", "q1", "median", "q3", "max")
"""What is measured of each column of numbers."""


def count_labels(listed: Listed) -> dict[str, Any]:
    """Returns the numbers of images by label and part, by number of labels, and of pairs.

    "labels" has the number of images by label and part, "per_image" that of images by their number
    of labels, "without" that of images without labels by part, "pairs" the most frequent pairs.
    """
    values, names = _targets(listed), listed.target_names
    each = values.sum(1).astype(int)
    parts = {part: np.array(listed.parts) == part for part in parts_of(listed)}
    sums = {part: values[own].sum(0).astype(int).tolist() for part, own in parts.items()}
    return {
        "labels": {name: {part: sums[part][i] for part in parts} for i, name in enumerate(names)},
        "per_image": {str(n): int(count) for n, count in enumerate(np.bincount(each)) if count},
        "without": {part: int((each[own] == 0).sum()) for part, own in parts.items()},
        "pairs": [
            {"labels": [names[i], names[j]], "images": images} for images, i, j in _pairs(values)
        ],
    }


def _pairs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns the most frequent pairs of labels: number of images, and the two columns."""
    found: list[tuple[int, int, int]] = []
    for start in range(0, values.shape[1], _BLOCK):
        together = values[:, start : start + _BLOCK].T @ values  # (labels of the block, labels)
        together *= np.arange(values.shape[1]) > np.arange(start, start + len(together))[:, None]
        best = np.argsort(-together, axis=None, kind="stable")[:_MOST_PAIRS]
        for i, j in zip(*np.unravel_index(best, together.shape), strict=True):
            found += [(int(together[i, j]), start + int(i), int(j))] * bool(together[i, j])
    return sorted(found, key=lambda pair: (-pair[0], *pair[1:]))[:_MOST_PAIRS]


def count_numbers(listed: Listed) -> dict[str, dict[str, dict[str, float | None]]]:
    """Returns by number and part: count, missing, mean, deviation, extremes and quartiles."""
    values = _targets(listed)
    parts = {part: np.array(listed.parts) == part for part in parts_of(listed)}
    return {
        name: {part: _describe_column(values[own, i]) for part, own in parts.items()}
        for i, name in enumerate(listed.target_names)
    }


def _describe_column(values: np.ndarray) -> dict[str, float | None]:
    found = values[~np.isnan(values)]
    counts = {"count": len(found), "missing": len(values) - len(found)}
    if not len(found):
        return {name: counts.get(name) for name in NUMBERS}
    quartiles = np.quantile(found, [0, 0.25, 0.5, 0.75, 1]).tolist()
    moments = [float(found.mean()), float(found.std())]
    return {**counts, **dict(zip(NUMBERS[2:], [*moments, *quartiles], strict=True))}


def describe_odd_labels(listed: Listed, labels: Mapping[str, Any], groups: Groups) -> list[str]:
    """Returns lines about what looks odd in several labels an image.

    Args:
        listed: The images.
        labels: What `count_labels` returns.
        groups: Images with the same content.
    """
    advice = "; see optim.pos_weight and optim.loss asymmetric"
    lines = describe_classes(labels["labels"], advice=advice)
    names = np.array(listed.target_names)
    if everywhere := names[_targets(listed).all(0)].tolist():
        shown = ", ".join(map(repr, everywhere[:5]))
        lines.append(f"{counted(len(everywhere), 'label')} that all images have: {shown}")
    return lines + _describe_copies(listed, groups, "labels")


def describe_odd_numbers(listed: Listed, groups: Groups) -> list[str]:
    """Returns lines about missing, constant and far numbers, and copies with other numbers."""
    lines = []
    for name, column in zip(listed.target_names, _targets(listed).T, strict=True):
        if missing := int(np.isnan(column).sum()):
            lines.append(
                f"{missing} of {len(column)} images without a number in {name!r}, which training "
                "refuses"
            )
        found = column[~np.isnan(column)]
        if len(found) and (found == found[0]).all():
            lines.append(f"{name!r} is {found[0]:.6g} for all images, which training refuses")
        elif len(found):
            low, high = np.quantile(found, [0.25, 0.75])
            reach = _FAR * (high - low)
            far = np.flatnonzero((column < low - reach) | (column > high + reach)).tolist()
            if far and reach:
                shown = f"{listed.names[far[0]]} ({column[far[0]]:.6g})"
                lines.append(
                    f"{counted(len(far), 'number')} in {name!r} more than {_FAR} times the "
                    f"interquartile range from the middle half, such as {shown}"
                )
    return lines + _describe_copies(listed, groups, "numbers")


def _describe_copies(listed: Listed, groups: Groups, noun: str) -> list[str]:
    """Returns a line about images with the same content and other targets."""
    values = _targets(listed)
    mixed = [
        (group[0], other)
        for group in groups
        if (other := next((i for i in group if _differ(values[i], values[group[0]])), None))
    ]
    if not mixed:
        return []
    shown = " and ".join(listed.names[i] for i in mixed[0])
    return [f"{counted(len(mixed), 'content')} in images with other {noun}, such as {shown}"]


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return not np.array_equal(one, other, equal_nan=True)


def choose_pictures(listed: Listed, readable: np.ndarray, is_labels: bool) -> dict[str, list[int]]:
    """Returns readable images for the sheet: those of each label, or in order of each number."""
    members = {}
    for name, column in zip(listed.target_names, _targets(listed).T, strict=True):
        own = np.flatnonzero(readable & ((column > 0) if is_labels else ~np.isnan(column)))
        members[name] = (own if is_labels else own[np.argsort(column[own])]).tolist()
    return {name: own for name, own in members.items() if own}


def number_of(listed: Listed, index: int, name: str) -> float:
    """Returns the number of an image in a column."""
    return float(_targets(listed)[index, listed.target_names.index(name)])


def _targets(listed: Listed) -> np.ndarray:
    assert listed.targets is not None
    return listed.targets
