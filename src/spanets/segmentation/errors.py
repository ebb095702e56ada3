"""Writes the page of a segmenter's mistakes, and a table of all images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spanets.segmentation.masks.reading import MaskedImages
from spanets.segmentation.masks.values import IGNORED
from spanets.segmentation.metrics import class_ious
from spanets.segmentation.report import draw_mask
from spanets.training.mistakes import (
    MARK,
    PAGE,
    check_folder,
    first_bytes,
    name_images,
    write_table,
)
from spanets_runtime.errors import UserError
from spanets_runtime.html import Page, html_table, to_html
from spanets_runtime.images import load_image
from spanets_runtime.masks import class_colours, overlay

TABLE = "images.csv"

HEADER = ("image", "mean_iou", "accuracy", "pixels", "ignored")
"""Columns of the table; the IoU of each class follows."""

SHOWN, CONFUSIONS = 16, 20
"""Number of images on the page, and of confused pairs of classes."""

_SIDE = 300  # of a picture, in pixels
_WRONG, _UNKNOWN = (213, 0, 50), (0, 0, 0)


def check_errors(out: Path) -> None:
    """Checks before the evaluation that the files can be written.

    Raises:
        UserError: they cannot, or another file is in the way.
    """
    check_folder(out, {PAGE: MARK, TABLE: first_bytes(HEADER)})


def describe_image(labels: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Returns numbers of an image: IoU of each class, then right, counted and ignored pixels.

    Args:
        labels: Predicted classes (H, W).
        truth: True classes or `IGNORED`, (H, W).
        classes: Number of classes.
    """
    known = truth != IGNORED
    pairs = truth[known] * classes + labels[known]
    counts = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    pixels = [counts.diagonal().sum(), counts.sum(), (~known).sum()]
    return torch.cat([class_ious(counts), torch.stack(pixels).double()]).cpu()


def save_errors(
    out: Path,
    samples: MaskedImages,
    of_images: Sequence[Tensor],
    label: Callable[[Image.Image], NDArray[np.uint8]],
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the page and the table.

    Args:
        out: The folder.
        samples: The N images that were measured.
        of_images: The result of `describe_image` for each.
        label: Returns the class of each pixel of an image.
        results: The results of `evaluate`.

    Returns:
        The paths, by "page" and "table".

    Raises:
        UserError: a file cannot be written.
    """
    numbers = torch.stack(list(of_images)).numpy()
    ious, pixels = numbers[:, :-3], numbers[:, -3:]
    defined = np.isfinite(ious)
    counted = defined.sum(1)
    means = np.where(counted, np.where(defined, ious, 0).sum(1) / counted.clip(1), np.nan)
    names = name_images(samples.images, None)
    rows = (
        [names[i], *_cells(means[i], pixels[i]), *map(_cell, ious[i])] for i in range(len(names))
    )
    header = (*HEADER, *(f"iou of {name}" for name in samples.classes))
    write_table(out / TABLE, header, rows)
    page = Page(MARK, _SIDE)
    order = [i for i in np.argsort(means, kind="stable").tolist() if np.isfinite(means[i])]
    figures = (_figures(page, samples, i, names[i], means[i], label) for i in order[:SHOWN])
    body = [*_head(samples.classes, results), *_legend(samples.classes)]
    body.append(
        f"<h2>The images of lowest mean IoU ({min(SHOWN, len(order))} of {len(names)})</h2>"
    )
    body.append(
        "<p>Truth, with ignored pixels in black; prediction; difference, with wrong pixels in "
        "red. The mean is over the classes in the image or its prediction.</p>"
    )
    page.write(
        out / PAGE,
        f"Mistakes of {results['checkpoint']}",
        [*body, *(x for f in figures for x in f)],
    )
    return {"page": str(out / PAGE), "table": str(out / TABLE)}


def _cells(mean: float, pixels: NDArray[np.float64]) -> list[object]:
    right, counted, ignored = pixels.tolist()
    accuracy = right / counted if counted else None
    return [_cell(mean), accuracy, int(counted), int(ignored)]


def _cell(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _head(classes: Sequence[str], results: Mapping[str, Any]) -> Iterator[str]:
    mean = results["metrics"]["mIoU"]
    shown = "undefined" if mean is None else f"{mean:.4f}"
    yield (
        f"<p>{results['images']} images of {to_html(results['data'])}: mIoU {shown}. "
        f"{TABLE} lists all images.</p>"
    )
    if "tta" in results:
        yield f"<p>{to_html(results['tta'])}</p>"
    yield "<h2>IoU by class, lowest first</h2>"
    known = sorted(results["iou"].items(), key=lambda item: (item[1] is None, item[1] or 0.0))
    values = [(name, "undefined" if iou is None else f"{iou:.4f}") for name, iou in known]
    yield html_table(("class", "IoU"), values)
    yield "<h2>The most confused classes</h2>"
    rows = [
        (classes[truth], classes[predicted], count, f"{share:.1%}")
        for truth, predicted, count, share in most_confused(np.array(results["confusion"]))
    ]
    yield html_table(("truth", "taken for", "pixels", "of the truth"), rows)


def _legend(classes: Sequence[str]) -> list[str]:
    colours = class_colours(len(classes)).tolist()
    marks = (
        f'<span style="background:rgb{tuple(colour)};padding:0 .7em">&nbsp;</span> {to_html(name)}'
        for colour, name in zip(colours, classes, strict=True)
    )
    return [f"<p>{' &emsp; '.join(marks)}</p>"]


def most_confused(confusion: NDArray[np.int64]) -> list[tuple[int, int, int, float]]:
    """Returns the most frequent confusions of pixels.

    Args:
        confusion: Pixels by true and predicted class.

    Returns:
        Truth, prediction, pixels, and their share of the true class, most pixels first.
    """
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(place), len(confusion)) for place in order if wrong.flat[place]]
    totals = confusion.sum(1)
    return [(t, p, int(wrong[t, p]), float(wrong[t, p] / totals[t])) for t, p in pairs]


def _figures(
    page: Page,
    samples: MaskedImages,
    index: int,
    name: str,
    mean: float,
    label: Callable[[Image.Image], NDArray[np.uint8]],
) -> list[str]:
    """Returns truth, prediction and difference of an image, side by side."""
    short = to_html(name.rsplit("/", 1)[-1])
    try:
        image = load_image(samples.images[index])
        truth = samples.load_mask(index, (image.height, image.width))
    except UserError:
        return [page.figure(None, [short], name)]
    guess, count = label(image), len(samples.classes)
    pictures = {
        f"{short}, truth": draw_mask(image, truth, count),
        f"prediction, mean IoU {mean:.4f}": overlay(image, guess, count),
        "difference": draw_difference(image, truth, guess),
    }
    figures = [page.figure(picture, [line], name) for line, picture in pictures.items()]
    return ["<div>", *figures, "</div>"]


def draw_difference(
    image: Image.Image, truth: NDArray[np.uint8], guess: NDArray[np.uint8]
) -> Image.Image:
    """Returns an image in gray, with wrong pixels in red and ignored ones in black."""
    shown = np.array(image.convert("L").convert("RGB"))
    shown[(truth != guess) & (truth != IGNORED)] = _WRONG
    shown[truth == IGNORED] = _UNKNOWN
    return Image.fromarray(shown)
