"""Predictions of models that estimate numbers, such as an age, from an image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.images import load_image
from spanets_runtime.listing import ImageSource
from spanets_runtime.predict import ImagePrediction, check_answer, predict_each


@dataclass(frozen=True)
class ValuePrediction(ImagePrediction):
    """The estimated numbers of an image.

    Attributes:
        image, error, was_read: See `ImagePrediction`.
        values: The number by name, in the unit of the training data.
    """

    values: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Returns a line for people."""
        return f"{self.image}: " + "  ".join(f"{n} {x:.6g}" for n, x in self.values.items())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for machines."""
        return {"image": self.image, "values": None if self.error is not None else self.values}


def predict_values(
    images: Iterable[ImageSource],
    run: Callable[[Any], NDArray[Any]],
    names: Sequence[str],
    read: Callable[[ImageSource], Any] = load_image,
) -> Iterator[ValuePrediction]:
    """Yields a prediction for each image, in order; for an unreadable one, it carries the error.

    Args:
        images: Paths of the images.
        run: Function from a decoded image to its numbers (names,), in the training data's unit.
        names: Names of the numbers.
        read: Decodes an image; 8-bit RGB by default.
    """

    def predict(path: ImageSource) -> ValuePrediction:
        values = run(read(path))
        check_answer(bool(np.isfinite(values).all()))
        pairs = zip(names, values.astype(np.float64).tolist(), strict=True)
        return ValuePrediction(str(path), values=dict(pairs))

    return predict_each(images, predict, ValuePrediction)
