"""A labelled list of images, which every reader of a data set returns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.data.class_names import match_classes
from spanets.data.packed import PackedPaths
from spanets_runtime.images import StoredImage

# The lists that may be None, and `labels`.
_LISTS = ("labels", "targets", "strata", "shards", "names", "groups", "weights", "folds")


@dataclass(frozen=True)
class Samples:
    """Images with their classes; all lists but `classes` have one entry per image.

    Attributes:
        images: image files, or images stored in shards or tables.
        labels: the class of each image, as an index into `classes`; all 0 for other targets.
        classes: the class names, or the names of the columns of other targets.
        targets: soft labels, the probability of every class for each image; or other targets than
            a class, an array (images, columns); or None.
        strata: the stratum of each image, for stratified splits, or None.
        shards: the number of the shard that stores each image, or None if each image is a file.
        names: names of the images in the run's split list, or None if no split was drawn.
        groups: the group of each image, which is in one part only, or None.
        weights: the weight of each image in the training loss, or None.
        folds: the fold of each image that the data set gives, or None.
        notes: messages about what was left out, renamed or changed, each with a count.

    Raises:
        ValueError: the lists disagree in length, or a label is no index into `classes`.
    """

    images: Sequence[Path | StoredImage]
    labels: list[int]
    classes: list[str]
    targets: list[list[float]] | NDArray[Any] | None = None
    strata: list[str] | None = None
    shards: list[int] | None = None
    names: Sequence[str] | None = None
    groups: list[str] | None = None
    weights: list[float] | None = None
    folds: list[int] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _LISTS:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.images):
                raise ValueError(f"{len(values)} {name} for {len(self.images)} images")
        wrong = set(self.labels) - set(range(len(self.classes)))
        if wrong:
            raise ValueError(f"labels {sorted(wrong)} with {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Iterable[int]) -> "Samples":
        """Returns the samples at `indices`, in that order, with the same classes."""
        indices, images = list(indices), self.images
        taken: dict[str, Any] = {name: _take(getattr(self, name), indices) for name in _LISTS}
        if isinstance(images, PackedPaths):
            return replace(self, images=images.take(indices), **taken)
        return replace(self, images=[images[i] for i in indices], **taken)

    def noted(self, notes: Iterable[str]) -> "Samples":
        """Returns the samples with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def joined(self, other: "Samples") -> "Samples":
        """Returns the samples of both, of the same classes; drops soft labels, strata and names.

        Other lists stay if both have them.
        """
        assert self.classes == other.classes
        shards = None
        if self.shards is not None and other.shards is not None:
            first = max(self.shards, default=-1) + 1  # the other's shards are other files
            shards = self.shards + [first + number for number in other.shards]
        return Samples(
            images=[*self.images, *other.images],
            labels=self.labels + other.labels,
            classes=self.classes,
            targets=_join_arrays(self.targets, other.targets),
            shards=shards,
            groups=_join(self.groups, other.groups),
            weights=_join(self.weights, other.weights),
            folds=_join(self.folds, other.folds),
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
        )

    def numbered_strata(self) -> list[int]:
        """Returns the stratum of each image as a number: its class, unless there are strata."""
        if self.strata is None:
            return self.labels
        numbers: dict[str, int] = {}
        return [numbers.setdefault(stratum, len(numbers)) for stratum in self.strata]

    def counts(self) -> dict[str, int]:
        """Returns the number of images of each class, in the order of `classes`, zeros included."""
        numbers = [0] * len(self.classes)
        for label in self.labels:
            numbers[label] += 1
        return dict(zip(self.classes, numbers, strict=True))


def _take(values: Any, indices: list[int]) -> Any:
    if isinstance(values, np.ndarray):
        return values[indices]
    return None if values is None else [values[i] for i in indices]


def _join(first: list[Any] | None, second: list[Any] | None) -> list[Any] | None:
    return None if first is None or second is None else first + second


def _join_arrays(first: Any, second: Any) -> NDArray[Any] | None:
    are_arrays = isinstance(first, np.ndarray) and isinstance(second, np.ndarray)
    return np.concatenate([first, second]) if are_arrays else None


def map_classes(samples: Samples, classes: list[str]) -> Samples:
    """Renumbers labels for a model with these classes.

    Raises:
        UserError: the samples have images of a class that the model lacks.
    """
    present = sorted(set(samples.labels))
    numbers = match_classes([samples.classes[label] for label in present], classes)
    places = dict(zip(present, numbers, strict=True))
    return replace(
        samples, labels=[places[label] for label in samples.labels], classes=classes, targets=None
    )
