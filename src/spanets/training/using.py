"""Predicts and evaluates with a checkpoint of any task."""

from collections.abc import Sequence
from typing import Any

from spanets.sources import Source
from spanets.tasks import list_tasks, load_task
from spanets.training.task import EvalOptions, Predict, PredictOptions
from spanets_runtime.errors import UsageError


def make_predictor(source: Source, options: PredictOptions) -> Predict:
    """Returns a function that predicts images with a checkpoint.

    Raises:
        UsageError: an option belongs to other tasks.
        UserError: the preprocessing is damaged.
    """
    source.require_classes()
    names = ["annotations", "tta_scales", "tta", "tile", "calibrated"]
    # With tiles every task that knows them writes files.
    _refuse_foreign(source, options, names if options.tile else ["out", *names])
    return load_task(source.info.task).make_predictor(source, options)


def evaluate(source: Source, options: EvalOptions) -> dict[str, Any]:
    """Evaluates a checkpoint on its own images or a data set; see `Task.evaluate`.

    Raises:
        UsageError: an option belongs to other tasks.
        UserError: the data does not fit the checkpoint.
    """
    source.require_classes()
    names = ("layout", "errors", "calibrate", "precision", "score", "tta_scales", "tta")
    _refuse_foreign(source, options, names)
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
