"""Images to labels: the loop that every kind of model shares."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.images import IMAGE_SUFFIXES, ImageError, load_image


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, the likeliest first, or why there are none.

    Attributes:
        image: Path.
        labels: Class names with their probabilities.
        error: What is wrong with the image, or None.
    """

    image: str
    labels: list[tuple[str, float]]
    error: str | None = None

    def __str__(self) -> str:
        """Returns a line for people."""
        return f"{self.image}: " + "  ".join(f"{name} {p:.3f}" for name, p in self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for machines."""
        labels = [{"label": name, "probability": p} for name, p in self.labels]
        return {"image": self.image, "predictions": labels}


def predict_images(
    images: Iterable[str | Path],
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
            probabilities = _softmax(classify(load_image(path)))
        except ImageError as error:
            told = str(error)  # the reader's begin with the path, the preprocessing's do not
            yield Prediction(str(path), [], told if str(path) in told else f"{path}: {told}")
            continue
        order = np.argsort(-probabilities, kind="stable")[:top]
        labels = [(classes[i], float(probabilities[i])) for i in order]
        yield Prediction(str(path), labels)


def expand_images(paths: Iterable[str | Path]) -> list[Path]:
    """Returns files as they are, and of a folder the images directly in it, sorted.

    Raises:
        UserError: a folder without images, or one that cannot be read.
    """
    expanded: list[Path] = []
    for path in map(Path, paths):
        found = _images_in(path) if path.is_dir() else [path]
        if not found:
            deeper = any(entry.is_dir() for entry in path.iterdir())
            hint = " directly in it; name its subfolders" if deeper else ""
            raise UserError(f"{path}: a folder without images{hint}")
        expanded += found
    return expanded


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    return [
        path
        for path in entries
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
    ]


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return shifted / shifted.sum()
