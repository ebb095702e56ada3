"""What a task adds to the page of a run: tables of its results, and images with predictions.

A task returns text, numbers and pictures; `spanets.report` turns them into HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spanets.training.mistakes import name_images
from spanets_runtime.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from spanets.data.samples import Samples

MOST_IMAGES = 400
"""Largest number of images of the evaluation that are predicted to choose examples."""

SHOWN = 8
"""Number of best and of worst images, of tasks with one small picture an image."""

T = TypeVar("T")

Line = tuple[str, ...]
"""A line below a picture: "right", "wrong" or "", then its parts, such as a class name."""


@dataclass(frozen=True)
class Table:
    """A table of results, of which the page shows the first rows.

    Attributes:
        title: Its heading.
        header: Names of the columns.
        rows: Texts, numbers, and None where undefined; those to look at come first.
        about: A sentence above it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    about: str = ""


@dataclass(frozen=True)
class Scatter:
    """A plot of predicted against true numbers."""

    title: str
    true: Sequence[float]
    predicted: Sequence[float]


@dataclass(frozen=True)
class Example:
    """An image with its prediction.

    Attributes:
        name: Path of the image in its data set.
        pictures: Pictures side by side by their captions; None for one that cannot be read.
        lines: Lines below them.
    """

    name: str
    pictures: Mapping[str, Image.Image | None]
    lines: Sequence[Line]


@dataclass(frozen=True)
class Examples:
    """The best and the worst of some evaluation images.

    Attributes:
        about: A sentence about the images that were looked at, and their order.
        best, worst: Images, the best and the worst first.
        images: The images that were looked at, as the preprocessing reads them.
        seconds: Time of predicting them, with reading.
    """

    about: str
    best: Sequence[Example]
    worst: Sequence[Example]
    images: Sequence[Any] = field(default=())
    seconds: float | None = None


def rank(scores: NDArray[Any], shown: int = SHOWN) -> tuple[list[int], list[int]]:
    """Returns the numbers of the highest scores and of the lowest ones, none in both.

    Args:
        scores: A score for each image; images without a finite one are left out.
        shown: Largest number of each.
    """
    order = [i for i in np.argsort(-scores, kind="stable").tolist() if np.isfinite(scores[i])]
    best = order[: min(shown, (len(order) + 1) // 2)]
    worst = order[len(best) :][-shown:]
    return best, worst[::-1]


def describe_images(looked_at: int, total: int, place: str, order: str) -> str:
    """Returns the sentence of `Examples.about`."""
    which = f"All {total}" if looked_at == total else f"{looked_at} of the {total}"
    return f"{which} images of {place} were predicted for this page. {order}"


def choose_examples(
    samples: Samples,
    root: str | None,
    scores: NDArray[Any],
    describe: Callable[[int], list[Line]],
    view: Callable[[Any], Image.Image],
) -> tuple[list[Example], list[Example]]:
    """Returns the best and the worst images, with one picture each.

    Args:
        samples: The N images that were predicted.
        root: Folder of the data set, or None.
        scores: (N,), higher for better predictions.
        describe: Returns the lines of an image below its name.
        view: Decodes an image for people.
    """
    names = name_images(samples.images, root)

    def show(row: int) -> Example:
        short = names[row].rsplit("/", 1)[-1]
        try:
            picture = view(samples.images[row])
        except UserError:
            picture = None
        return Example(names[row], {"": picture}, [("", short), *describe(row)])

    best, worst = rank(scores)
    return list(map(show, best)), list(map(show, worst))
