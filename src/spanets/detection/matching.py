"""Matches detections to objects as COCO does, and names what is wrong with the others, as in TIDE.

Source of the kinds: Bolya et al., 2020, "TIDE: A General Toolbox for Identifying Object Detection
Errors", section 2.2, in the order of the authors' code. IoU is that of boxes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.formats.coco.objects import Annotation, CocoData, CocoImage, to_xywh
from spanets.formats.coco.results import Result
from spanets.training.thresholds import choose_threshold

FOREGROUND, BACKGROUND = 0.5, 0.1
"""IoU from which a detection finds an object, and below which it has nothing to do with it."""

MOST_DETECTIONS = 100
"""Detections of a class in an image that COCO measures; those of lower scores are left out."""

KINDS = {
    "localisation": "right class, IoU with the object from 0.1 to 0.5",
    "classification": "IoU of at least 0.5 with an object of another class",
    "both": "IoU from 0.1 to 0.5 with an object of another class",
    "duplicate": "the object is already found with a higher score",
    "background": "IoU below 0.1 with every object",
    "missed": "an object without a detection, a localisation or a classification error",
}
"""Kinds of mistakes; all but the last are detections."""

CORRECT, IGNORED = "correct", "ignored"


@dataclass(frozen=True, slots=True)
class Match:
    """A detection, or an object that none found.

    Attributes:
        image: The image.
        label: Class of the detection, or of the missed object.
        score: Score, or None for a missed object.
        box: x, y, width and height in pixels.
        kind: "correct", a key of `KINDS`, or "ignored" in a crowd region or beyond
            `MOST_DETECTIONS`.
        truth: The found object, the nearest one, or None.
        iou: IoU with `truth`, or None.
    """

    image: CocoImage
    label: int
    score: float | None
    box: tuple[float, ...]
    kind: str
    truth: Annotation | None
    iou: float | None


def match(data: CocoData, found: Mapping[int, Sequence[Result]]) -> list[Match]:
    """Matches the detections of all images.

    Args:
        data: The ground truth.
        found: Results by image id, with the category ids of `data`.

    Returns:
        A match for each detection, by image, in order of falling score.
    """
    labels = {number: label for label, number in enumerate(data.category_ids, start=1)}
    return [
        one for image in data.images for one in _match_image(image, found.get(image.id, ()), labels)
    ]


def _match_image(
    image: CocoImage, results: Sequence[Result], label_of: Mapping[int, int]
) -> Iterator[Match]:
    results = sorted(results, key=lambda result: -result["score"])
    truth = image.annotations
    labels = np.array([a.label for a in truth], int)
    crowd = np.array([a.crowd for a in truth], bool)
    boxes = np.array([result["bbox"] for result in results], float).reshape(-1, 4)
    overlaps = _ious(boxes, np.array([to_xywh(a.box) for a in truth]).reshape(-1, 4), crowd)
    is_found = np.zeros(len(truth), bool)
    kinds: list[tuple[str, int | None]] = []
    seen: dict[int, int] = {}
    for row, result in zip(overlaps, results, strict=True):
        label = label_of[result["category_id"]]
        seen[label] = seen.get(label, 0) + 1
        same = labels == label
        near = same & (row >= FOREGROUND)
        free = near & ~crowd & ~is_found
        if seen[label] > MOST_DETECTIONS:
            kinds.append((IGNORED, None))
        elif free.any():
            place = _last_best(np.where(free, row, -1.0))
            is_found[place] = True
            kinds.append((CORRECT, place))
        elif (near & crowd).any():
            kinds.append((IGNORED, _last_best(np.where(near & crowd, row, -1.0))))
        else:
            kinds.append(_mistake(np.where(crowd, 0.0, row), same))
    for result, row, (kind, index) in zip(results, overlaps, kinds, strict=True):
        known = (None, None) if index is None else (truth[index], float(row[index]))
        label = label_of[result["category_id"]]
        yield Match(image, label, float(result["score"]), tuple(result["bbox"]), kind, *known)


def _last_best(values: NDArray[np.float64]) -> int:
    """Returns the place of the largest value, the last of several, as COCO's evaluation does."""
    return len(values) - 1 - int(values[::-1].argmax())


def _mistake(row: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[str, int | None]:
    """Returns the kind of a detection that found nothing, and its nearest object.

    Args:
        row: IoU with each object, 0 for crowd regions.
        same: Whether each object has the class of the detection.
    """
    if not len(row) or row.max() < BACKGROUND:
        return "background", None
    own, other = np.where(same, row, 0.0), np.where(same, 0.0, row)
    nearest, foreign = int(own.argmax()), int(other.argmax())
    if BACKGROUND <= own[nearest] < FOREGROUND:
        return "localisation", nearest
    if other[foreign] >= FOREGROUND:
        return "classification", foreign
    if own[nearest] >= FOREGROUND:
        return "duplicate", nearest
    return "both", foreign


def _ious(
    found: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Returns the IoU (N, M) of boxes as x, y, width, height.

    For crowd regions it is the share of the detection that lies inside, as in COCO's evaluation.
    """
    starts = np.maximum(found[:, None, :2], truth[None, :, :2])
    ends = np.minimum(
        (found[:, :2] + found[:, 2:])[:, None], (truth[:, :2] + truth[:, 2:])[None, :]
    )
    shared = (ends - starts).clip(0).prod(2)
    own, other = found[:, 2:].prod(1)[:, None], truth[:, 2:].prod(1)[None, :]
    whole = np.where(crowd[None, :], own, own + other - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def add_missed(data: CocoData, matches: Sequence[Match], score: float) -> list[Match]:
    """Returns the detections with at least this score, and the objects that they miss."""
    likely = [one for one in matches if one.score is not None and one.score >= score]
    hints = (CORRECT, "localisation", "classification")
    reached = {(one.image.id, id(one.truth)) for one in likely if one.kind in hints and one.truth}
    missed = [
        Match(image, truth.label, None, tuple(to_xywh(truth.box)), "missed", truth, None)
        for image in data.images
        for truth in image.annotations
        if not truth.crowd and (image.id, id(truth)) not in reached
    ]
    return [*likely, *missed]


def count_kinds(matches: Sequence[Match]) -> dict[str, int]:
    """Returns the number of matches of each kind, "correct" first."""
    counts = dict.fromkeys((CORRECT, *KINDS), 0)
    for one in matches:
        if one.kind in counts:
            counts[one.kind] += 1
    return counts


def recommend(
    data: CocoData, matches: Sequence[Match], precision: float | None
) -> list[dict[str, Any]]:
    """Returns thresholds of the score for the best F1 and, if given, for a precision.

    Args:
        data: The ground truth.
        matches: The result of `match`.
        precision: See `choose_threshold`.

    Returns:
        Rows of `choose_threshold`, with "class" (None for all classes together) and "objects".
    """
    truth = [a.label for image in data.images for a in image.annotations if not a.crowd]
    counted = [one for one in matches if one.kind != IGNORED]
    labels = np.array([one.label for one in counted], int)
    scores = np.array([one.score for one in counted], float)
    hits = np.array([one.kind == CORRECT for one in counted], bool)
    rows = []
    for label, name in enumerate([None, *data.classes]):
        chosen = labels == label if name is not None else np.ones(len(labels), bool)
        objects = truth.count(label) if name is not None else len(truth)
        for goal in [None] if precision is None else [None, precision]:
            found = choose_threshold(scores[chosen], hits[chosen], objects, goal)
            rows.append({"class": name, "objects": objects, **found})
    return rows
