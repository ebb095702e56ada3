"""Images to labels: the loop that every kind of model shares."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.images import ImageError, load_image, named
from spanets_runtime.listing import ImageSource


class AnswerError(ImageError):
    """An image that can be read, and whose answer cannot be used."""


def check_answer(is_finite: bool) -> None:
    """Refuses what a model with broken weights answers.

    Args:
        is_finite: Whether the answer has neither NaN nor infinities.

    Raises:
        AnswerError: it has; the message does not name the image, which the caller knows.
    """
    if not is_finite:
        raise AnswerError("the model's answer is not a number; its weights may be broken")


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, the likeliest first, or why there are none.

    Attributes:
        image: Path.
        labels: Class names with their probabilities.
        error: What is wrong with the image or the answer, or None.
        was_read: The image is not what is wrong.
    """

    image: str
    labels: list[tuple[str, float]]
    error: str | None = None
    was_read: bool = True

    def __str__(self) -> str:
        """Returns a line for people."""
        return f"{self.image}: " + "  ".join(f"{name} {p:.3f}" for name, p in self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for machines."""
        if self.error is not None:
            return {"image": self.image, "predictions": None}
        labels = [{"label": name, "probability": p} for name, p in self.labels]
        return {"image": self.image, "predictions": labels}


def predict_images(
    images: Iterable[ImageSource],
    classify: Callable[[Image.Image], NDArray[Any]],
    classes: Sequence[str],
    top: int,
) -> Iterator[Prediction]:
    """Yields a prediction for each image, in order; an unreadable one has its error.

    One at a time, so that memory does not grow with the number of images.

    Args:
        images: Paths.
        classify: From an RGB image to its logits (classes,).
        classes: Names, in the order of the logits.
        top: Classes for each image; all of them where there are fewer.
    """
    for path in images:
        try:
            logits = classify(load_image(path))
            check_answer(bool(np.isfinite(logits).all()))
        except ImageError as error:
            was_read = isinstance(error, AnswerError)
            yield Prediction(str(path), [], named(path, error), was_read)
            continue
        probabilities = _softmax(logits)
        order = np.argsort(-probabilities, kind="stable")[:top]
        labels = [(classes[i], float(probabilities[i])) for i in order]
        yield Prediction(str(path), labels)


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return shifted / shifted.sum()
