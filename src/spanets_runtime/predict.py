"""Predictions for images, and the loop that all kinds of models share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.images import ImageError, describe_error, load_image
from spanets_runtime.listing import ImageSource


class AnswerError(ImageError):
    """The image was read, but the model's output is unusable."""


def check_answer(is_finite: bool) -> None:
    """Refuses the output of a model with broken weights.

    Args:
        is_finite: Whether the output has neither NaN nor infinities.

    Raises:
        AnswerError: the output is not finite; the caller adds the image's name.
    """
    if not is_finite:
        raise AnswerError("the model's output is NaN or infinite; its weights may be broken")


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for an image, or the error.

    A task adds its fields, and may override `to_dict` and `str`.

    Attributes:
        image: Path of the image.
        error: What is wrong with the image or the model's output, or None.
        was_read: Whether the image could be read.
    """

    image: str
    error: str | None = field(default=None, kw_only=True)
    was_read: bool = field(default=True, kw_only=True)

    def __str__(self) -> str:
        """Returns a line for people."""
        found = {key: value for key, value in self.to_dict().items() if key != "image"}
        return f"{self.image}: " + "  ".join(f"{key} {found[key]}" for key in found)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for machines."""
        values = asdict(self)
        return {key: values[key] for key in values if key not in ("error", "was_read")}


P = TypeVar("P", bound=ImagePrediction)


def predict_each(
    images: Iterable[ImageSource], predict: Callable[[ImageSource], P], kind: type[P]
) -> Iterator[P]:
    """Yields a prediction for each image, in order; on failure, it carries the error.

    Args:
        images: Paths of the images.
        predict: Function from a path to its prediction; may raise `ImageError` or `AnswerError`.
        kind: Class of the predictions.
    """
    for path in images:
        try:
            yield predict(path)
        except ImageError as error:
            was_read = isinstance(error, AnswerError)
            yield kind(str(path), error=describe_error(path, error), was_read=was_read)


@dataclass(frozen=True)
class Prediction(ImagePrediction):
    """The most likely classes of an image, in descending order.

    Attributes:
        image, error, was_read: See `ImagePrediction`.
        labels: Class names with their probabilities.
    """

    labels: list[tuple[str, float]] = field(default_factory=list)

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
    classify: Callable[[Any], NDArray[Any]],
    classes: Sequence[str],
    top: int,
    read: Callable[[ImageSource], Any] = load_image,
) -> Iterator[Prediction]:
    """Yields a prediction for each image, in order; for an unreadable one, it carries the error.

    Args:
        images: Paths of the images.
        classify: Function from a decoded image to its logits (classes,).
        classes: Class names, in the order of the logits.
        top: Number of classes for each image; all if there are fewer.
        read: Decodes an image; 8-bit RGB by default.
    """

    def predict(path: ImageSource) -> Prediction:
        logits = classify(read(path))
        check_answer(bool(np.isfinite(logits).all()))
        probabilities = _softmax(logits)
        order = np.argsort(-probabilities, kind="stable")[:top]
        return Prediction(str(path), [(classes[i], float(probabilities[i])) for i in order])

    return predict_each(images, predict, Prediction)


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return shifted / shifted.sum()
