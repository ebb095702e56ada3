"""`spanets eval`: evaluates a model on labelled images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets_cli.option_types import fraction, local_path
from spanets_cli.output import print_json, print_notes, say_described
from spanets_cli.programs import refuse_program
from spanets_cli.ranks import only_first_prints
from spanets_cli.shared_options import (
    add_batch,
    add_tta,
    add_weights,
    add_workers,
    open_named,
    read_tta,
)

if TYPE_CHECKING:
    from spanets.data.kept_results import KeptResults
    from spanets.training.options import EvalOptions
    from spanets.training.task import Task

HELP = "evaluate a model on labelled images"

EPILOG = """\
examples:
  spanets eval runs/photos/last.ckpt                      the test images of the run
  spanets eval runs/photos/last.ckpt --data photos --errors mistakes
  spanets eval spanet_small --data imagenet/val --batch 128 --json
  spanets eval photos.onnx --data photos
  spanets eval spanet_small --data imagenet/val --parts eval.parts   resumable
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "checkpoint",
        type=local_path,
        metavar="MODEL|CHECKPOINT|FILE.onnx|FOLDS",
        help="a model's name (its published weights are fetched once), a trained model, or the "
        "folder of a cross-validation",
    )
    parser.add_argument(
        "--data",
        type=local_path,
        metavar="DIR",
        help="data set (default: test images of the run, or its validation images if it has none)",
    )
    parser.add_argument(
        "--layout",
        metavar="NAME",
        help="imagenet, imagenet-real, -v2, -c, -a or -r (default: detect it)",
    )
    add_batch(parser, None, " (default: 64, or 2 for detectors)")
    add_workers(parser)
    add_weights(parser)
    _add_after_training(parser)
    parser.add_argument(
        "--parts",
        type=local_path,
        metavar="DIR",
        help="keep the results of batches in this folder until the end, so that the same command "
        "goes on after an interruption",
    )
    parser.add_argument(
        "--trust-recipe",
        action="store_true",
        help="allow the checkpoint's recipe to choose which images are read or downloaded",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_after_training(parser: argparse.ArgumentParser) -> None:
    """Adds the options for mistakes, thresholds and augmented views."""
    parser.add_argument(
        "--errors",
        type=local_path,
        metavar="DIR",
        help="write a page of mistakes, and a table of all answers, detections or images; for "
        "classifiers also of labels that are likely wrong",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="classifiers: fit a temperature on the run's validation images and store it in the "
        "checkpoint, for predict --calibrated",
    )
    parser.add_argument(
        "--thresholds",
        action="store_true",
        help="several labels an image: choose each label's threshold on the run's validation "
        "images again, and store it in the checkpoint",
    )
    parser.add_argument(
        "--precision",
        type=fraction,
        metavar="P",
        help="detectors, and classifiers of two classes: also recommend a threshold for this "
        "precision (of the second class)",
    )
    parser.add_argument(
        "--score",
        type=fraction,
        metavar="P",
        help="detectors: lowest score of the detections whose mistakes are counted (default: that "
        "of the best F1)",
    )
    add_tta(parser)


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Evaluates a model and prints the metrics, once for all processes of torchrun."""
    with only_first_prints():
        return evaluate_model(arguments)


def evaluate_model(arguments: argparse.Namespace) -> int:
    """Evaluates a model and prints the metrics."""
    from spanets_runtime.errors import require

    require("torchmetrics", "train")
    from spanets.runs.listing import is_cross_validation
    from spanets.tasks import load_task
    from spanets.training.options import EvalOptions
    from spanets.training.using import evaluate

    refuse_program(arguments.checkpoint, "eval")
    options = EvalOptions(
        arguments.data,
        arguments.layout,
        arguments.workers,
        arguments.batch,
        arguments.trust_recipe,
        errors=None if arguments.errors is None else Path(arguments.errors),
        calibrate=arguments.calibrate,
        precision=arguments.precision,
        **read_tta(arguments),
        score=arguments.score,
        thresholds=arguments.thresholds,
    )
    folder, kept = Path(arguments.checkpoint), _open_parts(arguments, options)
    if is_cross_validation(folder):
        task, results = _evaluate_folds(folder, options, arguments.weights, kept)
    else:
        source = open_named(arguments.checkpoint, arguments.weights)
        task, results = load_task(source.info.task), evaluate(source, options, kept)
    print_notes(results.get("notes", []))
    if arguments.json:
        print_json(results)
    else:
        say_described(task.describe_metrics, results)
    if kept is not None:
        kept.remove()
    return 0


def _open_parts(arguments: argparse.Namespace, options: EvalOptions) -> KeptResults | None:
    """Returns the folder of --parts, with what determines the results of batches."""
    from dataclasses import asdict

    from spanets.data.kept_results import KeptResults
    from spanets_runtime.shared_table import describe_model

    if arguments.parts is None:
        return None
    facts = {**asdict(options), "errors": options.errors is not None}
    for name in ("root", "workers", "batch_size", "trusted"):  # the batch size is compared later
        del facts[name]
    given = {f"--{name.replace('_', '-')}": value for name, value in facts.items()}
    described = {**describe_model(arguments.checkpoint, arguments.weights), **given}
    return KeptResults(Path(arguments.parts), described, "name another --parts")


def _evaluate_folds(
    folder: Path, options: EvalOptions, weights: str | None, kept: KeptResults | None
) -> tuple[type[Task[Any]], dict[str, Any]]:
    """Measures all folds of a cross-validation together; returns the task and the results.

    Raises:
        UsageError: an option is for one model.
        UserError: a fold is not finished or cannot be measured.
    """
    from spanets.data.ranks import shared_batches
    from spanets.recipe import load_recipe
    from spanets.runs.file_names import FOLD_RECIPE
    from spanets.tasks import load_task
    from spanets.training.folds import evaluate_folds
    from spanets_runtime.errors import UsageError

    given = {
        "--data": options.root,
        "--layout": options.layout,
        "--calibrate": options.calibrate or None,
        "--thresholds": options.thresholds or None,
        "--precision": options.precision,
        "--score": options.score,
        "--weights": weights,
    }
    if wrong := [name for name, value in given.items() if value is not None]:
        raise UsageError(
            f"{wrong[0]} is for one model, and {folder} is a cross-validation, whose folds are "
            f"measured on their own images; name a fold, such as {folder / 'fold-0' / 'last.ckpt'}"
        )
    task = load_task(load_recipe(str(folder / FOLD_RECIPE), trusted=True).task)
    with shared_batches(kept):
        results = evaluate_folds(folder, options)
    if results is None:
        raise UsageError(f"{folder}: folds are not measured together for {task.name}")
    return task, results
