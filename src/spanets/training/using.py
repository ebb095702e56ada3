"""Predicts and evaluates with a checkpoint of any task."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from spanets.data.kept_results import KeptResults
from spanets.data.ranks import shared_batches, use_own_gpu
from spanets.sources import Source, open_source
from spanets.tasks import list_tasks, load_task
from spanets.training.options import EvalOptions, PredictOptions
from spanets.training.task import Predict
from spanets_runtime.errors import UsageError
from spanets_runtime.listing import ImageSource
from spanets_runtime.onnx import is_exported, make_onnx_rows
from spanets_runtime.preprocessing import give_rows
from spanets_runtime.tables import Columns, Row, refuse_task


def make_predictor(source: Source, options: PredictOptions) -> Predict:
    """Returns a function that predicts images with a checkpoint.

    Raises:
        UsageError: an option belongs to other tasks.
        UserError: the preprocessing is damaged.
    """
    source.require_classes()
    names = ["annotations", "tta_scales", "tta_crops", "tta", "tile", "calibrated"]
    # With tiles every task that knows them writes files.
    _refuse_foreign(source, options, names if options.tile else ["out", *names])
    use_own_gpu()
    return load_task(source.info.task).make_predictor(source, options)


def make_rows(source: Source, options: PredictOptions) -> tuple[Columns, Predict]:
    """Returns the columns of a table of predictions, and the function of `make_predictor`.

    Raises:
        UsageError: an option belongs to other tasks, or the model is no classifier or detector.
        UserError: the preprocessing is damaged.
    """
    task = source.info.task
    if task not in ("classification", "detection"):
        refuse_task(source.word, task)
    predict = make_predictor(source, options)
    labels = min(options.top, len(source.info.classes)) if task == "classification" else None
    return Columns(labels), give_rows(predict, source.preprocess)


def predict_table(
    model: str | Path,
    images: Iterable[ImageSource],
    top: int = 5,
    min_score: float = 0.5,
    calibrated: bool = False,
    tta: bool = False,
) -> Iterator[Row]:
    """Yields a row of `spanets predict --table` for each image, in order.

    A process opens a model once, so a job of Ray or Spark may call this for each of its partitions.

    Args:
        model: A checkpoint, an exported classifier, or a model's name, for its published weights.
        images: Paths of the images.
        top: Classifiers: number of classes in a row.
        min_score: Detectors: lowest score of an object.
        calibrated: Classifiers: whether to use the temperature in the checkpoint.
        tta: Classifiers: whether to average over each image and its mirror image.

    Returns:
        Rows with "image", "error" (text or None), and "label_1", "probability_1", "label_2" and so
        on for classifiers, "predictions" for detectors, which are None if there is an error.

    Raises:
        UsageError: an option belongs to other tasks, or the model is no classifier or detector.
        UserError: the model cannot be read.
    """
    options = PredictOptions(top, min_score=min_score, tta=tta, calibrated=calibrated)
    columns, predict = _open_rows(str(model), options, _stamp(model))
    return map(columns.row, predict(map(os.fspath, images)))


@lru_cache(maxsize=1)
def _open_rows(
    word: str, options: PredictOptions, _: tuple[int, int] | None
) -> tuple[Columns, Predict]:
    if is_exported(word):
        return make_onnx_rows(word, options.top, options.calibrated, options.tta)
    return make_rows(open_source(word, pretrained=True), options)


def _stamp(model: str | Path) -> tuple[int, int] | None:
    """Returns time and size of a model's file, so that a file that changes is opened again."""
    try:
        found = os.stat(model)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def evaluate(
    source: Source, options: EvalOptions, kept: KeptResults | None = None
) -> dict[str, Any]:
    """Evaluates a checkpoint on its own images or a data set; see `Task.evaluate`.

    Under torchrun, the processes share the images, and each returns the results of all.

    Args:
        source: The checkpoint.
        options: The options.
        kept: Where results of batches are kept for an interrupted evaluation, or None.

    Raises:
        UsageError: an option belongs to other tasks.
        UserError: the data does not fit the checkpoint.
    """
    source.require_classes()
    names = (
        *("layout", "errors", "calibrate", "precision", "score"),
        *("tta_scales", "tta_crops", "tta", "thresholds"),
    )
    _refuse_foreign(source, options, names)
    with shared_batches(kept):
        return load_task(source.info.task).evaluate(source, options)


def _refuse_foreign(
    source: Source, options: PredictOptions | EvalOptions, names: Sequence[str]
) -> None:
    task = load_task(source.info.task)
    for option in names:
        is_given = getattr(options, option) not in (None, False)
        if is_given and option not in task.supported_options:
            takers = [name for name in list_tasks() if option in load_task(name).supported_options]
            raise UsageError(
                f"--{option.replace('_', '-')} is for {' and '.join(takers)}, and {source.word} is "
                f"for {task.name}"
            )
