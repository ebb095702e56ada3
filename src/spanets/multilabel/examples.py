"""What the page of a run shows of a model of several labels: numbers by label, and images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from spanets.multilabel.evaluation import measure_model
from spanets.sources import Source
from spanets.training.options import EvalOptions
from spanets.training.report_parts import (
    MOST_IMAGES,
    Examples,
    Line,
    Scatter,
    Table,
    choose_examples,
    describe_images,
)
from spanets_runtime.tags import read_thresholds, sigmoid

NAMED = 5
"""Largest number of labels that are named below an image."""

_COLUMNS = ("ap", "precision", "recall", "f1", "threshold")


def report_results(results: Mapping[str, Any]) -> list[Table | Scatter]:
    """Returns the numbers of each label, lowest average precision first."""
    rows = [
        [name, row["images"], *(row[column] for column in _COLUMNS)]
        for name, row in results["labels"].items()
    ]
    rows.sort(key=lambda row: (row[2] is None, row[2] or 0.0))
    header = ["label", "images", "AP", *_COLUMNS[1:]]
    return [Table("Labels", header, rows, "Lowest average precision first.")]


def find_examples(source: Source, options: EvalOptions) -> Examples:
    """Returns the images of lowest and of highest loss.

    Raises:
        UserError: the images cannot be read.
    """
    names = source.info.classes
    found = measure_model(source, options, limit=MOST_IMAGES)
    thresholds = read_thresholds(source.info.calibration, len(names), source.word)
    probabilities, truth = sigmoid(found.outputs), found.targets > 0.5
    chosen = probabilities >= np.asarray(thresholds)
    losses = (np.logaddexp(0, found.outputs) - found.targets * found.outputs).mean(1)

    def describe(row: int) -> list[Line]:
        kind = "right" if (chosen[row] == truth[row]).all() else "wrong"
        picked = sorted(np.flatnonzero(chosen[row]), key=lambda i: -probabilities[row, i])
        said = [part for i in picked for part in (names[i], f"{probabilities[row, i]:.3f},")]
        true = [names[i] for i in np.flatnonzero(truth[row])]
        return [(kind, f"{kind}:", *_cut(said, 2)), ("", "truth:", *_cut([f"{n}," for n in true]))]

    best, worst = choose_examples(
        found.samples, options.root, -losses, describe, source.preprocess.view
    )
    order = "They are in the order of the loss; right means that all labels are right."
    about = describe_images(len(losses), found.total, found.part, order)
    return Examples(about, best, worst, found.samples.images, found.seconds)


def _cut(words: list[str], parts: int = 1) -> list[str]:
    """Returns the words of at most `NAMED` labels, of so many words each."""
    more = len(words) // parts - NAMED
    kept = words[: parts * NAMED] or ["no label"]
    return [*kept, f"and {more} more"] if more > 0 else [*kept[:-1], kept[-1].removesuffix(",")]
