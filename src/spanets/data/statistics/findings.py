"""Finds what looks odd in a data set: copies, leaks between parts, classes and their sizes.

Functions about classes count images, or objects in images; `noun` says which.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from spanets.data.class_names import normal
from spanets.data.sources.labelled import Listed
from spanets.data.statistics.measuring import ODD, Totals

FEW = 10
"""Classes with fewer training images than this are reported as nearly empty."""

_GRAY = frozenset({"1", "L", "LA", "La", "I"})  # modes of Pillow; LAB is one of colour

UNBALANCED = 10
"""The largest class over the smallest; a data set from here on is reported as unbalanced."""

Groups = list[list[int]]
"""Indices of images with the same content, in ascending order."""


def group_copies(totals: Totals) -> Groups:
    """Returns the groups of two and more readable images whose bytes are the same."""
    rows = np.flatnonzero(totals.readable)
    keys = totals.digests[rows].view(np.uint64)  # (N, 2)
    order = np.lexsort((rows, keys[:, 1], keys[:, 0]))
    keys, rows = keys[order], rows[order]
    borders = np.flatnonzero((keys[1:] != keys[:-1]).any(1)) + 1
    starts, ends = [0, *borders.tolist()], [*borders.tolist(), len(rows)]
    return sorted(rows[a:b].tolist() for a, b in zip(starts, ends, strict=True) if b - a > 1)


def parts_of(listed: Listed) -> list[str]:
    """Returns the parts in order: train, val, test, others by name, and "" for none."""
    order = {"train": 0, "val": 1, "test": 2, "": 4}
    return sorted(set(listed.parts), key=lambda part: (order.get(part, 3), part))


def describe_copies(listed: Listed, groups: Groups) -> list[str]:
    """Returns a line for each pair of parts that share content, for mixed labels, for copies."""
    lines = []
    for first, second in combinations(filter(None, parts_of(listed)), 2):
        shared = [group for group in groups if {first, second} <= {listed.parts[i] for i in group}]
        if shared:
            count = sum(listed.parts[i] == second for group in shared for i in group)
            found = (next(i for i in shared[0] if listed.parts[i] == p) for p in (first, second))
            lines.append(
                f"leak: {counted(count, 'image')} of {second} also in {first}, with the same "
                f"content, such as {' and '.join(listed.names[i] for i in found)}"
            )
    if listed.folds and (
        spread := [group for group in groups if len({listed.folds[i] for i in group}) > 1]
    ):
        shown = " and ".join(listed.names[i] for i in spread[0][:2])
        lines.append(f"leak: {counted(len(spread), 'content')} in several folds, such as {shown}")
    mixed = [group for group in groups if len({listed.classes[i] for i in group} - {""}) > 1]
    if mixed:
        shown = " and ".join(listed.names[i] for i in _of_two_classes(listed, mixed[0]))
        lines.append(
            f"{counted(len(mixed), 'content')} in images of several classes, such as {shown}"
        )
    if groups:
        copies = sum(len(group) - 1 for group in groups)
        shown = " and ".join(listed.names[i] for i in groups[0][:2])
        lines.append(
            f"{counted(copies, 'image')} with the same content as an earlier one, such as {shown}"
        )
    return lines


def _of_two_classes(listed: Listed, group: list[int]) -> tuple[int, int]:
    first = next(i for i in group if listed.classes[i])
    other = (i for i in group if listed.classes[i] not in ("", listed.classes[first]))
    return first, next(other)


def count_classes(listed: Listed) -> dict[str, dict[str, int]]:
    """Returns the number of images by class and part, sorted by class; "" stands for none."""
    counts, parts = Counter(zip(listed.classes, listed.parts, strict=True)), parts_of(listed)
    return {
        name: {part: counts[name, part] for part in parts} for name in sorted(set(listed.classes))
    }


def describe_empty(folders: Sequence[Any]) -> list[str]:
    """Returns a line about class folders without images, if there are any."""
    if not folders:
        return []
    count = len(folders)
    return [f"{count} class folder{'s' * (count > 1)} without images, such as {folders[0]}"]


def describe_classes(
    classes: Mapping[str, Mapping[str, int]], noun: str = "image", advice: str = ""
) -> list[str]:
    """Returns lines about class names that look alike, empty and rare classes, and imbalance.

    Args:
        classes: Numbers by class and part.
        noun: What is counted.
        advice: End of the line about imbalance.
    """
    named = {name: counts for name, counts in classes.items() if name}
    lines = _describe_twins([*named])
    parts = next(iter(named.values()), {})
    part = "train" if "train" in parts else ""
    sizes = {name: counts.get(part, 0) for name, counts in named.items()}
    of = f"training {noun}s" if part else f"{noun}s"
    if part:
        lines += _describe_missing(named, [other for other in parts if other], noun)
    if few := {name: n for name, n in sizes.items() if 0 < n < FEW}:
        shown = _list(f"{name!r} ({few[name]})" for name in sorted(few, key=few.__getitem__))
        lines.append(f"{counted(len(few), 'class', 'es')} with fewer than {FEW} {of}: {shown}")
    found = {name: n for name, n in sizes.items() if n}
    if found:
        most, least = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
        ratio = found[most] / found[least]
        if ratio >= UNBALANCED:
            lines.append(
                f"unbalanced: {most!r} has {found[most]} {of}, {least!r} has {found[least]}, a "
                f"ratio of {ratio:.3g}{advice}"
            )
    return lines


def _describe_twins(names: Sequence[str]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(normal(name).casefold().split()), []).append(name)
    return [
        f"classes {' and '.join(map(repr, group))} differ only in letter case or spaces; they are "
        f"{len(group)} classes"
        for group in groups.values()
        if len(group) > 1
    ]


def _describe_missing(
    classes: Mapping[str, Mapping[str, int]], parts: Sequence[str], noun: str
) -> Iterable[str]:
    for part in parts:
        if lacking := [name for name, counts in classes.items() if not counts[part]]:
            shown = _list(map(repr, lacking))
            yield f"{counted(len(lacking), 'class', 'es')} without {noun}s in {part}: {shown}"


def count_folds(listed: Listed) -> dict[str, dict[str, int]]:
    """Returns the number of images by class and fold of a table, sorted; empty without folds."""
    counts = Counter(zip(listed.classes, listed.folds, strict=False))
    folds = sorted(set(listed.folds))
    return {
        name: {str(fold): counts[name, fold] for fold in folds}
        for name in sorted(set(listed.classes))
        if folds
    }


def describe_folds(folds: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns a line for each fold that lacks classes."""
    numbers = [fold for fold in next(iter(folds.values()), {}) if not fold.startswith("-")]
    named = {
        name: {f"fold {fold}": count for fold, count in counts.items()}
        for name, counts in folds.items()
    }
    return list(_describe_missing(named, [f"fold {number}" for number in numbers], "image"))


def describe_groups(listed: Listed) -> list[str]:
    """Returns lines about groups, such as patients, that are in several parts or folds."""
    lines = []
    for what, homes in (("parts", listed.parts), ("folds", listed.folds)):
        found: dict[str, set[Any]] = {}
        for group, home in zip(listed.groups, homes, strict=False):
            found.setdefault(group, set()).add(home)
        if shared := [group for group, own in found.items() if len(own) > 1]:
            where = " and ".join(map(str, sorted(found[shared[0]])))
            lines.append(
                f"leak: {counted(len(shared), 'group')} of {len(found)} in several {what}, such as "
                f"{shared[0]!r} ({where})"
            )
    return lines


def describe_images(listed: Listed, totals: Totals) -> list[str]:
    """Returns lines about unusual and mixed images."""
    total, lines = len(listed.images), []
    if totals.is_of_arrays and len(totals.modes) > 1:
        counted = totals.modes.most_common()
        shown = (f"{n} of {kind}, as {listed.names[totals.first_of[kind]]}" for kind, n in counted)
        lines.append(f"mixed: images of several types, each scaled by its own: {'; '.join(shown)}")
    for name, words in ODD.items():
        if name in totals.odd:
            count, example = totals.odd[name]
            lines.append(f"{count} of {total} images {words}, such as {listed.names[example]}")
    if totals.is_of_arrays:
        return lines
    gray = sum(n for mode, n in totals.modes.items() if mode.split(",")[0] in _GRAY)
    colour = totals.modes.total() - gray
    if gray and colour:
        lines.append(f"mixed: {gray} of {total} images in gray, {colour} in colour")
    return lines


def counted(count: int, noun: str, plural: str = "s") -> str:
    """Returns a number with its noun."""
    return f"{count} {noun}{plural * (count > 1)}"


def _list(names: Iterable[Any], limit: int = 5) -> str:
    shown = list(map(str, names))
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more
