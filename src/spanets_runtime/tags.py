"""Predictions of models with several labels an image, each with a threshold of its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.errors import UserError
from spanets_runtime.images import load_image
from spanets_runtime.listing import ImageSource
from spanets_runtime.predict import ImagePrediction, check_answer, predict_each

DEFAULT_THRESHOLD = 0.5


def read_thresholds(values: Mapping[str, Any], count: int, origin: object) -> list[float]:
    """Returns the threshold of each label.

    Args:
        values: Metadata of the model, perhaps with "thresholds"; without them they are 0.5.
        count: Number of labels.
        origin: Source of the metadata, for messages.

    Raises:
        UserError: they are damaged.
    """
    found = values.get("thresholds")
    if found is None:
        return [DEFAULT_THRESHOLD] * count
    is_list = isinstance(found, list | tuple) and len(found) == count
    if not is_list or not all(isinstance(x, float | int) and 0 <= x <= 1 for x in found):
        raise UserError(f"{origin}: damaged, its thresholds are not {count} numbers from 0 to 1")
    return [float(x) for x in found]


@dataclass(frozen=True)
class TagPrediction(ImagePrediction):
    """Labels of an image with their probabilities, in descending order.

    Attributes:
        image, error, was_read: See `ImagePrediction`.
        labels: Name, probability, and whether the probability is at least the label's threshold.
    """

    labels: list[tuple[str, float, bool]] = field(default_factory=list)

    def __str__(self) -> str:
        """Returns a line for people: the chosen labels."""
        chosen = [f"{name} {p:.3f}" for name, p, is_chosen in self.labels if is_chosen]
        if not chosen:
            name, p, _ = self.labels[0]
            return f"{self.image}: no label reaches its threshold (most likely: {name} {p:.3f})"
        return f"{self.image}: " + "  ".join(chosen)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for machines."""
        if self.error is not None:
            return {"image": self.image, "predictions": None}
        rows = [{"label": name, "probability": p, "chosen": c} for name, p, c in self.labels]
        return {"image": self.image, "predictions": rows}


def predict_tags(
    images: Iterable[ImageSource],
    run: Callable[[Any], NDArray[Any]],
    names: Sequence[str],
    thresholds: Sequence[float],
    top: int,
    read: Callable[[ImageSource], Any] = load_image,
) -> Iterator[TagPrediction]:
    """Yields a prediction for each image, in order; for an unreadable one, it carries the error.

    Args:
        images: Paths of the images.
        run: Function from a decoded image to its logits (labels,).
        names: Names of the labels.
        thresholds: Threshold of each label.
        top: Number of the most likely labels for each image; chosen labels are always included.
        read: Decodes an image; 8-bit RGB by default.
    """

    def predict(path: ImageSource) -> TagPrediction:
        logits = run(read(path))
        check_answer(bool(np.isfinite(logits).all()))
        probabilities = sigmoid(logits)
        chosen = probabilities >= np.asarray(thresholds)
        order = np.argsort(-probabilities, kind="stable").tolist()
        kept = [i for place, i in enumerate(order) if place < top or chosen[i]]
        rows = [(names[i], float(probabilities[i]), bool(chosen[i])) for i in kept]
        return TagPrediction(str(path), rows)

    return predict_each(images, predict, TagPrediction)


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Returns probabilities of logits of any shape; large ones do not overflow."""
    halves = 0.5 * logits.astype(np.float64)
    return 0.5 * (1 + np.tanh(halves))
