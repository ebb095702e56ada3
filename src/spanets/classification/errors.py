"""Writes the page of a classifier's mistakes, and a table of all its answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets.classification.answers import Answers, reliability
from spanets.classification.group_metrics import measure_groups
from spanets.classification.report import plot_reliability
from spanets.classification.wrong_label_page import OWN_FILES, save_wrong_labels
from spanets.data.ranks import current_rank
from spanets.data.samples import Samples
from spanets.training.mistakes import (
    MARK,
    PAGE,
    check_folder,
    first_bytes,
    write_table,
)
from spanets_runtime.errors import UserError, require
from spanets_runtime.html import Page, data_uri, to_html
from spanets_runtime.images import load_image

TABLE, DIAGRAM = "answers.csv", "reliability.png"

HEADER = ("path", "truth", "predicted", "probability", "probability_of_truth", "margin")

SHOWN = 40
"""Largest number of pictures of mistakes, and of uncertain images."""

CONFUSIONS, EXAMPLES = 10, 4


def check_errors(out: Path) -> None:
    """Checks before the evaluation that the files can be written.

    Raises:
        UserError: they cannot, another file is in the way, or matplotlib is missing.
    """
    require("matplotlib", "train")
    check_folder(out, {PAGE: MARK, TABLE: first_bytes(HEADER), **OWN_FILES}, [DIAGRAM])


def report_answers(
    results: dict[str, Any],
    samples: Samples,
    names: Sequence[str],
    answers: Answers,
    errors: Path | None,
    probabilities: list[NDArray[np.float32]] | None,
    scope: str,
    view: Callable[[Any], Image.Image] = load_image,
) -> None:
    """Adds "groups", if the images have groups, and writes the pages of `--errors`.

    Args:
        results: The results so far.
        samples: The images that were measured.
        names: Their paths for pages and tables.
        answers: The answers to them.
        errors: Folder for the pages, or None.
        probabilities: Batches of probabilities, for the pages.
        scope: See `save_wrong_labels`.
        view: Decodes an image for the pages.
    """
    if samples.groups is not None:
        results["groups"] = measure_groups(samples.groups, answers)
    if errors is not None and probabilities and current_rank().is_first:
        results["errors"] = save_errors(errors, samples, answers, names, results, view)
        joined = np.concatenate(probabilities)
        results["wrong_labels"] = save_wrong_labels(errors, samples, names, joined, scope, view)


def save_errors(
    out: Path,
    samples: Samples,
    answers: Answers,
    names: Sequence[str],
    results: Mapping[str, Any],
    view: Callable[[Any], Image.Image] = load_image,
) -> dict[str, Any]:
    """Writes the page, the table and the reliability diagram.

    Args:
        out: The folder.
        samples: The N images that were measured.
        answers: The N answers.
        names: The N paths for the table and the captions.
        results: The results of `evaluate`.
        view: Decodes an image for the page.

    Returns:
        The paths, by "page", "table" and "diagram", and the number of "wrong" images.

    Raises:
        UserError: a file cannot be written.
    """
    plot_reliability(reliability(answers), out / DIAGRAM)
    _save_table(out / TABLE, samples.classes, answers, names)
    page = _Page(samples, answers, names, view)
    page.write(out / PAGE, results, (out / DIAGRAM).read_bytes())
    return {
        "page": str(out / PAGE),
        "table": str(out / TABLE),
        "diagram": str(out / DIAGRAM),
        "wrong": int((~answers.right).sum()),
    }


def _save_table(path: Path, classes: Sequence[str], answers: Answers, names: Sequence[str]) -> None:
    columns = answers.confidence, answers.of_truth, answers.margin
    rows = (
        [name, classes[answers.truth[i]], classes[answers.predicted[i]], *(v[i] for v in columns)]
        for i, name in enumerate(names)
    )
    write_table(path, HEADER, rows)


def most_confused(answers: Answers, classes: int) -> list[tuple[int, int, int]]:
    """Returns truth, answer and number of images of the most frequent confusions."""
    wrong = ~answers.right
    pairs = answers.truth[wrong] * classes + answers.predicted[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    order = np.lexsort((found, -counts))[:CONFUSIONS]
    return [(*divmod(int(found[i]), classes), int(counts[i])) for i in order]


class _Page:
    """The page of mistakes."""

    def __init__(
        self,
        samples: Samples,
        answers: Answers,
        names: Sequence[str],
        view: Callable[[Any], Image.Image],
    ) -> None:
        self.samples, self.answers, self.names, self.view = samples, answers, names, view
        self.page = Page(MARK)

    def write(self, path: Path, results: Mapping[str, Any], diagram: bytes) -> None:
        """Writes the page."""
        answers = self.answers
        wrong = np.flatnonzero(~answers.right)
        confident = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:SHOWN]
        uncertain = np.argsort(answers.margin, kind="stable")[:SHOWN]
        pictures = [
            *self._confusions(),
            f"<h2>The most confident mistakes ({len(confident)} of {len(wrong)})</h2>",
            *self._figures(confident),
            f"<h2>The least certain images ({len(uncertain)} of {len(answers)})</h2>",
            "<p>Right or wrong, by the difference of the two largest probabilities.</p>",
            *self._figures(uncertain),
        ]
        title = f"Mistakes of {results['checkpoint']}"
        self.page.write(path, title, [*self._head(results, diagram), *pictures])

    def _head(self, results: Mapping[str, Any], diagram: bytes) -> list[str]:
        count, wrong = len(self.answers), int((~self.answers.right).sum())
        ece = results["metrics"]["ece"]
        shown = "undefined" if ece is None else f"{ece:.4f}"
        return [
            f"<p>{wrong} of {count} images of {to_html(results['data'])} are answered wrong "
            f"(accuracy {1 - wrong / count:.4f}). {to_html(TABLE)} lists all images.</p>",
            *([f"<p>{to_html(results['tta'])}</p>"] if "tta" in results else []),
            f'<p><img alt="reliability diagram" width="420" src="{data_uri(diagram, "png")}"></p>',
            f"<p>Expected calibration error {shown}.</p>",
        ]

    def _confusions(self) -> Iterable[str]:
        classes = self.samples.classes
        rows = most_confused(self.answers, len(classes))
        yield "<h2>The most frequent confusions</h2>"
        if not rows:
            yield "<p>None: all images are answered right.</p>"
        for truth, predicted, count in rows:
            images = int((self.answers.truth == truth).sum())
            names = to_html(classes[truth]), to_html(classes[predicted])
            yield f"<h3>{names[0]} taken for {names[1]}: {count} of {images} images</h3>"
            found = np.flatnonzero(
                (self.answers.truth == truth) & (self.answers.predicted == predicted)
            )
            order = np.argsort(-self.answers.confidence[found], kind="stable")
            yield from self._figures(found[order][:EXAMPLES])

    def _figures(self, rows: NDArray[Any]) -> Iterable[str]:
        for row in rows.tolist():
            answers, classes = self.answers, self.samples.classes
            truth, predicted = (
                to_html(classes[v[row]]) for v in (answers.truth, answers.predicted)
            )
            kind = "right" if answers.right[row] else "wrong"
            lines = [
                to_html(self.names[row].rsplit("/", 1)[-1]),
                f"{truth} ({answers.of_truth[row]:.3f})",
                f'<span class="{kind}">&rarr; {predicted} ({answers.confidence[row]:.3f})</span>',
            ]
            yield self.page.figure(self._picture(row), lines, self.names[row])

    def _picture(self, row: int) -> Image.Image | None:
        try:
            return self.view(self.samples.images[row])
        except UserError:
            return None
