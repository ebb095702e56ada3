"""Measures a model of several labels on labelled images, and chooses its thresholds."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spanets.checkpoint import store_calibration
from spanets.data.ranks import current_rank
from spanets.multilabel.data import fit_labels, merge_folders, read_parts
from spanets.multilabel.metrics import best_threshold, measure
from spanets.multilabel.recipe import MultilabelRecipe
from spanets.multilabel.tables import make_reader
from spanets.sources import Source, open_checkpoint
from spanets.training.image_level_evaluation import Measured, measure_images, plain_metrics
from spanets.training.options import EvalOptions
from spanets_runtime.errors import UsageError
from spanets_runtime.tags import DEFAULT_THRESHOLD, read_thresholds, sigmoid


def evaluate(source: Source, options: EvalOptions) -> dict[str, Any]:
    """Measures a checkpoint or an exported file.

    Returns:
        See `Task.evaluate` and `metrics.measure`; "labels" holds the rows of the labels by name.

    Raises:
        UsageError: `options.thresholds` with an exported file or another data set.
        UserError: the data cannot be used.
    """
    chosen: list[str] = []
    if options.thresholds:
        _check_thresholds(source, options)
        source, chosen = choose_thresholds(source, options)
    classes = source.info.classes
    found = measure_model(source, options)
    probabilities = sigmoid(found.outputs)
    thresholds = read_thresholds(source.info.calibration, len(classes), source.word)
    metrics, rows = measure(found.outputs, probabilities, found.targets, thresholds)
    losses = np.logaddexp(0, found.outputs) - found.targets * found.outputs
    has_own = bool(source.info.calibration)
    if found.is_val and has_own:
        chosen.append(
            "the thresholds were chosen on these validation images, so precision, recall and F1 "
            "are a little too good"
        )
    results = found.describe(source.word)
    return {
        **results,
        "notes": [*results["notes"], *chosen],
        "metrics": plain_metrics({"loss": float(losses.mean()), **metrics}),
        "classes": classes,
        "thresholds_chosen": has_own,
        "labels": {name: plain_metrics(row) for name, row in zip(classes, rows, strict=True)},
    }


def _check_thresholds(source: Source, options: EvalOptions) -> None:
    if not source.is_checkpoint:
        raise UsageError(
            f"--thresholds takes a checkpoint in its run folder, and {source.word} is none"
        )
    if options.root is not None:
        raise UsageError(
            "--thresholds chooses on the run's own validation images; leave out --data"
        )


def measure_model(
    source: Source, options: EvalOptions, part: str | None = None, limit: int | None = None
) -> Measured:
    """Returns the outputs of a model; see `measure_images`."""
    classes = source.info.classes
    return measure_images(
        source,
        options,
        MultilabelRecipe,
        read_parts,
        partial(make_reader, classes=classes),
        partial(fit_labels, classes=classes),
        part,
        merge_folders,
        limit,
    )


def choose_thresholds(source: Source, options: EvalOptions) -> tuple[Source, list[str]]:
    """Chooses the threshold with the best F1 of each label, and stores them in the checkpoint.

    Labels that no validation image has keep 0.5.

    Returns:
        The source with its thresholds, and lines about them.
    """
    found = measure_model(source, options, part="val")
    probabilities = sigmoid(found.outputs)
    columns = zip(probabilities.T, found.targets.T, strict=True)
    best = [best_threshold(scores, truth) for scores, truth in columns]
    chosen = [DEFAULT_THRESHOLD if value is None else value for value in best]
    absent = [n for n, value in zip(source.info.classes, best, strict=True) if value is None]
    calibration = {"thresholds": chosen, "images": len(found.targets)}
    assert source.path is not None
    if current_rank().is_first:
        store_calibration(source.path, calibration)
    notes = [
        f"{source.word}: thresholds of {len(chosen) - len(absent)} labels, chosen for the best F1 "
        f"on {len(found.targets)} validation images, are now in it"
    ]
    if absent:
        notes.append(
            f"{source.word}: the threshold of {len(absent)} labels stays 0.5, because no "
            f"validation image has them: {', '.join(absent[:5])}"
        )
    return replace(source, info=replace(source.info, calibration=calibration)), notes


def finish(checkpoints: Sequence[Path], options: EvalOptions) -> list[str]:
    """Chooses the thresholds of a run's checkpoints; returns lines about them."""
    found = [choose_thresholds(open_checkpoint(path), options)[1] for path in checkpoints]
    return [line for lines in found for line in lines]
