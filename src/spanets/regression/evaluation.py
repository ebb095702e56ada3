"""Measures a model of numbers on a table of images."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.regression.data import fit_values, read_parts
from spanets.regression.metrics import measure
from spanets.regression.recipe import RegressionRecipe
from spanets.regression.scale import Scale
from spanets.regression.tables import make_reader
from spanets.sources import Source
from spanets.training.image_level_evaluation import Measured, measure_images, plain_metrics
from spanets.training.options import EvalOptions
from spanets_runtime.listing import spread_evenly

MAX_POINTS = 1000
"""Largest number of images whose numbers the results hold, for the scatter plot."""


def evaluate(source: Source, options: EvalOptions) -> dict[str, Any]:
    """Measures a checkpoint or an exported file.

    Returns:
        See `Task.evaluate` and `metrics.measure`; "values" holds the metrics of each number by
        name, and "points" the "true" and "predicted" numbers of up to `MAX_POINTS` images.

    Raises:
        UserError: the data cannot be used.
    """
    names, found = source.info.classes, measure_model(source, options)
    predicted = Scale.read(source.info, source.word).restore(found.outputs)
    metrics, each = measure(predicted, found.targets, names)
    return {
        **found.describe(source.word),
        "metrics": plain_metrics(metrics),
        "values": {name: plain_metrics(row) for name, row in each.items()},
        "points": {"true": _thin(found.targets), "predicted": _thin(predicted)},
    }


def measure_model(source: Source, options: EvalOptions, limit: int | None = None) -> Measured:
    """Returns the standardized outputs of a model, and targets in the data's units."""
    names = source.info.classes
    return measure_images(
        source,
        options,
        RegressionRecipe,
        read_parts,
        partial(make_reader, targets=names),
        partial(fit_values, names=names, origin=options.root or source.word),
        limit=limit,
    )


def _thin(values: NDArray[np.float64]) -> list[list[float]]:
    """Returns at most `MAX_POINTS` rows, evenly spread."""
    return values[spread_evenly(range(len(values)), MAX_POINTS)].tolist()
