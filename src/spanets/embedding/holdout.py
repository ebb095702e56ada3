"""Chooses the images that are held out, and scores predictions for them.

A data set with parts keeps them. Otherwise the content of an image decides, never the other
images: its digest, as a number from 0 to 1, is compared with the fraction. So an image keeps its
part when others are added, renamed or removed, and copies of one file are on the same side. Only a
class that would lie on one side entirely moves its nearest content to the other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.embedding.vectors import UNLABELLED, Embeddings
from spanets_runtime.errors import UserError

FRACTION = 0.25
"""Fraction of the images that is held out of a data set without parts."""

CHOOSING_FRACTION = 0.2
"""Fraction of the training images that chooses the probe's regularization."""

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class HeldOut:
    """Rows of the labelled images, divided in two.

    Attributes:
        train: Rows to fit on, sorted by path.
        held_out: Rows to measure on, sorted by path.
        choosing: Rows of "val" if "test" is held out; else empty.
        how: How the images were held out, in a few words.
        notes: Lines about images that are in no part of the measurement.
    """

    train: Rows
    held_out: Rows
    choosing: Rows
    how: str
    notes: tuple[str, ...] = ()


def check_labels(classes: Sequence[str]) -> None:
    """Checks before the model runs that accuracy can be measured.

    Args:
        classes: Class name of each image, "" for none.

    Raises:
        UserError: fewer than two classes, or no class with two images.
    """
    counts = {name: 0 for name in classes if name}
    for name in classes:
        if name:
            counts[name] += 1
    if len(counts) < 2:
        found = f"only one class, {next(iter(counts))!r}" if counts else "no class folders"
        raise UserError(
            f"--knn and --probe need images in two class folders or more; there is {found}"
        )
    if max(counts.values()) < 2:
        raise UserError(
            f"--knn and --probe need a class with two images or more; each of the {len(counts)} "
            "classes has one"
        )


def hold_out(embeddings: Embeddings) -> HeldOut:
    """Divides the labelled images by the data set's parts, or by their content.

    "test" is held out, or "val" if there is no "test".

    Raises:
        UserError: fewer than two classes to fit on, or no image to measure on.
    """
    labelled = embeddings.in_order_of_paths(np.flatnonzero(embeddings.labels != UNLABELLED))
    check_labels([embeddings.label_of(row) for row in labelled])
    notes = []
    if rest := len(embeddings) - len(labelled):
        notes.append(f"{_images(rest)} without a label, not used by neighbours and probe")
    parts = np.array(embeddings.parts)[labelled]
    present = set(parts.tolist())
    if "train" in present and present & {"val", "test"}:
        name = "test" if "test" in present else "val"
        train, held = labelled[parts == "train"], labelled[parts == name]
        choosing = labelled[parts == "val"] if name == "test" else labelled[:0]
        if lost := int((parts == "").sum()):
            notes.append(f"{_images(lost)} in no part, not used by neighbours and probe")
        how = f"the part {name!r}"
    else:
        train, held = divide(embeddings, labelled, FRACTION, "held out")
        choosing, how = labelled[:0], f"drawn by content, {FRACTION:.0%} of each class"
    _check(embeddings, train, held, how)
    return HeldOut(train, held, choosing, how, tuple(notes))


def _check(embeddings: Embeddings, train: Rows, held: Rows, how: str) -> None:
    if len(np.unique(embeddings.labels[train])) < 2:
        raise UserError(f"held out is {how}: the other images have fewer than two classes")
    if not len(held):
        raise UserError(f"held out is {how}: no image is left to measure on")


def divide(embeddings: Embeddings, rows: Rows, fraction: float, purpose: str) -> tuple[Rows, Rows]:
    """Divides rows by the content of their images, about `fraction` of each class in the second.

    Args:
        embeddings: The embeddings.
        rows: Rows of labelled images.
        fraction: Fraction of the second part.
        purpose: Divisions for other purposes are independent.

    Returns:
        First and second part, in the order of `rows`. A class with two different images or more
        is in both; one with a single image is in the first.
    """
    places = [_place(embeddings.digests[row].tobytes(), purpose) for row in rows]
    second = np.array([place < fraction for place in places], dtype=bool)
    of_class: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        of_class.setdefault(int(embeddings.labels[row]), []).append(i)
    for members in of_class.values():
        _mend(members, places, second)
    return rows[~second], rows[second]


def _mend(members: list[int], places: list[float], second: NDArray[np.bool_]) -> None:
    """Moves one content of a class to the part that has none of the class."""
    sides = {bool(second[i]) for i in members}
    if len({places[i] for i in members}) < 2:
        second[members] = False
    elif len(sides) == 1:
        nearest = max if sides == {True} else min
        moved = nearest(places[i] for i in members)
        for i in members:
            second[i] ^= places[i] == moved


def _place(digest: bytes, purpose: str) -> float:
    """Returns a number from 0 to 1, uniform over contents."""
    found = hashlib.blake2b(digest, digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(found, "big") / 2**64


def score(embeddings: Embeddings, split: HeldOut, predicted: NDArray[np.intp]) -> dict[str, Any]:
    """Scores predicted labels of the held-out images.

    Returns:
        "accuracy" with its 95 % interval (Wilson, 1927), "balanced_accuracy" (the mean recall of
        the classes with held-out images), "recall" by class (None without held-out images),
        numbers of images, and how they were held out.
    """
    truth = embeddings.labels[split.held_out]
    right = predicted == truth
    recall: dict[str, float | None] = {}
    counts: dict[str, int] = {}
    for label in np.unique(embeddings.labels[np.concatenate([split.train, split.held_out])]):
        own = truth == label
        name = embeddings.classes[label]
        counts[name] = int(own.sum())
        recall[name] = float(right[own].mean()) if own.any() else None
    known = [value for value in recall.values() if value is not None]
    return {
        "accuracy": float(right.mean()),
        "interval": _wilson(int(right.sum()), len(right)),
        "balanced_accuracy": float(np.mean(known)),
        "recall": recall,
        "held_out_images": counts,
        "images": len(truth),
        "train_images": len(split.train),
        "held_out": split.how,
        "notes": [*split.notes, *_describe_classes(embeddings, split, recall)],
    }


def _describe_classes(
    embeddings: Embeddings, split: HeldOut, recall: dict[str, float | None]
) -> list[str]:
    """Describes the classes that are on one side only."""
    notes = []
    if lone := [name for name, value in recall.items() if value is None]:
        notes.append(
            f"{len(lone)} of {len(recall)} classes, such as {lone[0]}, have images to learn from "
            "but none held out (a class with one image is never held out), so they have no recall"
        )
    missing = np.setdiff1d(embeddings.labels[split.held_out], embeddings.labels[split.train])
    if len(missing):
        notes.append(
            f"{len(missing)} of {len(recall)} classes have no training image, so their held-out "
            f"images count as wrong, such as {embeddings.classes[missing[0]]}"
        )
    return notes


def _wilson(right: int, count: int, z: float = 1.96) -> list[float]:
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    return [max(0.0, float(centre - half)), min(1.0, float(centre + half))]


def _images(count: int) -> str:
    return f"{count} image{'s' * (count > 1)}"
