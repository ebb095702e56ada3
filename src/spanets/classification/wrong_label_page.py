"""Writes the images whose labels are likely wrong: a page of pictures and a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets.classification.wrong_labels import WrongLabels, find_wrong_labels
from spanets.data.samples import Samples
from spanets.training.mistakes import MARK, first_bytes, write_table
from spanets_runtime.errors import UserError
from spanets_runtime.html import Page, to_html
from spanets_runtime.images import load_image

PAGE, TABLE = "likely_wrong_labels.html", "likely_wrong_labels.csv"

HEADER = (
    *("path", "given", "suggested"),
    *("probability_of_given", "probability_of_suggested", "margin"),
)

SHOWN = 100
"""Largest number of pictures."""

OWN_FILES: Mapping[str, bytes] = {PAGE: MARK, TABLE: first_bytes(HEADER)}
"""The beginnings of the files, by which a later command knows that it may replace them."""


def save_wrong_labels(
    out: Path,
    samples: Samples,
    names: Sequence[str],
    probabilities: NDArray[np.float32],
    scope: str,
    view: Callable[[Any], Image.Image] = load_image,
) -> dict[str, Any]:
    """Finds labels that are likely wrong, and writes them, the most likely first.

    Args:
        out: The folder.
        samples: The N images, with their given labels.
        names: The N paths for the table and the captions.
        probabilities: (N, classes), from models that were not trained on the image.
        scope: A sentence about the images that were looked at.
        view: Decodes an image for the page.

    Returns:
        The number of "likely" wrong labels, the estimated "share" of wrong labels, the number of
        "images", the paths "page" and "table", and "scope".

    Raises:
        UserError: a file cannot be written.
    """
    labels = np.array(samples.labels, np.int64)
    found = find_wrong_labels(labels, probabilities)
    given, suggested = labels[found.rows], found.suggested
    of_given, of_suggested = (probabilities[found.rows, c] for c in (given, suggested))
    rows = [
        (names[row], samples.classes[a], samples.classes[b], float(p), float(q), float(margin))
        for row, a, b, p, q, margin in zip(
            found.rows, given, suggested, of_given, of_suggested, found.margins, strict=True
        )
    ]
    write_table(out / TABLE, HEADER, rows)
    pictures = (_picture(view, samples, place) for place in found.rows.tolist())
    _write_page(out / PAGE, len(samples), found, rows, scope, pictures)
    return {
        "likely": len(rows),
        "share": found.share,
        "images": len(samples),
        "page": str(out / PAGE),
        "table": str(out / TABLE),
        "scope": scope,
    }


def _write_page(
    path: Path,
    count: int,
    found: WrongLabels,
    rows: Sequence[Sequence[Any]],
    scope: str,
    pictures: Iterable[Image.Image | None],
) -> None:
    page, shown = Page(MARK), rows[:SHOWN]
    body = [
        f"<p>{len(rows)} of {count} images; about {found.share:.1%} of the labels are "
        f"estimated to be wrong. {to_html(scope[:1].upper() + scope[1:])}.</p>",
        "<p>Look at each before you change it: a picture may be rare, or the model wrong. "
        f"Probabilities of the given and the suggested label stand below; {TABLE} lists all.</p>",
        f"<h2>The most likely ({len(shown)} of {len(rows)})</h2>",
        *_figures(page, pictures, shown),
    ]
    page.write(path, "Labels that are likely wrong", body)


def _figures(
    page: Page, pictures: Iterable[Image.Image | None], rows: Sequence[Sequence[Any]]
) -> Iterable[str]:
    for row, picture in zip(rows, pictures, strict=False):
        name, given, suggested, of_given, of_suggested, _ = row
        lines = [
            to_html(name.rsplit("/", 1)[-1]),
            f'<span class="wrong">given: {to_html(given)} ({of_given:.3f})</span>',
            f"suggested: {to_html(suggested)} ({of_suggested:.3f})",
        ]
        yield page.figure(picture, lines, name)


def _picture(
    view: Callable[[Any], Image.Image], samples: Samples, place: int
) -> Image.Image | None:
    try:
        return view(samples.images[place])
    except UserError:
        return None
