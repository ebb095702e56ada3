"""What the page of a run shows of a model of numbers: metrics by number, plots, and images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from spanets.regression.evaluation import measure_model
from spanets.regression.metrics import NAMES
from spanets.regression.report import MAX_PANELS, SHOWN_NAMES
from spanets.regression.scale import Scale
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

NAMED = 3
"""Largest number of numbers below an image."""


def report_results(results: Mapping[str, Any]) -> list[Table | Scatter]:
    """Returns the metrics of each number, and predicted against true numbers."""
    rows = [[name, *(row[key] for key in NAMES)] for name, row in results["values"].items()]
    header = ["number", *(SHOWN_NAMES[key] for key in NAMES)]
    points = {key: np.array(results["points"][key], float) for key in ("true", "predicted")}
    plots = [
        Scatter(name, points["true"][:, i].tolist(), points["predicted"][:, i].tolist())
        for i, name in enumerate(list(results["values"])[:MAX_PANELS])
    ]
    return [Table("Numbers", header, rows, "In the units of the data."), *plots]


def find_examples(source: Source, options: EvalOptions) -> Examples:
    """Returns the images of smallest and of largest error, in standard deviations.

    Raises:
        UserError: the images cannot be read.
    """
    names, scale = source.info.classes, Scale.read(source.info, source.word)
    found = measure_model(source, options, limit=MOST_IMAGES)
    predicted = scale.restore(found.outputs)
    errors = (np.abs(predicted - found.targets) / np.asarray(scale.std)).mean(1)

    def describe(row: int) -> list[Line]:
        largest = np.argsort(-np.abs(predicted - found.targets)[row], kind="stable")[:NAMED]
        return [
            ("", names[i], f"{predicted[row, i]:.4g},", f"truth {found.targets[row, i]:.4g}")
            for i in sorted(largest.tolist())
        ]

    best, worst = choose_examples(
        found.samples, options.root, -errors, describe, source.preprocess.view
    )
    order = "They are in the order of the error, in standard deviations of the training images."
    about = describe_images(len(errors), found.total, found.part, order)
    return Examples(about, best, worst, found.samples.images, found.seconds)
