"""`spanets train`: trains a model from a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spanets_cli.option_types import local_path
from spanets_cli.output import print_table, say, say_described, tell

if TYPE_CHECKING:
    from spanets.recipe import Recipe

HELP = "train a model from a recipe"

EPILOG = """\
examples:
  spanets train photos --data.root photos
  spanets train finetune --data.root photos --model.name spanet_small --out runs/tuned
  spanets train elpv --trainer.epochs 5 --model.name resnet18
  spanets train photos --out runs/photos --resume

Every key of the recipe can be set: --section.key VALUE.
Sections: model, data, optim, trainer. `--print-recipe` shows every key with its value, its meaning
and the allowed values; docs/recipe-keys.md lists the keys of all tasks.
Write numbers in decimal and lists as "[0.5, 2]". `null` or `none` clears an optional key.
If you give a key more than once, the last value counts.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "recipe", type=local_path, help="name of a recipe, such as elpv, or a YAML file"
    )
    parser.add_argument(
        "--out",
        type=local_path,
        metavar="DIR",
        help="run folder (default: runs/RECIPE, or RECIPE-2, ... if taken)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume from the last checkpoint in DIR"
    )
    parser.add_argument(
        "--print-recipe",
        action="store_true",
        help="print every key with its value and meaning, and exit",
    )
    parser.add_argument(
        "--trust-recipe",
        action="store_true",
        help="allow a recipe file to set URLs to download from and folders to write to",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Trains a model and prints the summary."""
    from spanets.recipe import describe_repeated, load_recipe
    from spanets_runtime.errors import require

    recipe = load_recipe(arguments.recipe, overrides, arguments.trust_recipe)
    for note in describe_repeated(overrides, type(recipe)):
        tell(note)
    if arguments.print_recipe:
        from spanets.recipe.documentation import print_recipe

        print(print_recipe(recipe), end="")
        return 0
    # A missing package must fail now, not after hours of training.
    for module in ("lightning", "torchmetrics", "tensorboard", "matplotlib"):
        require(module, "train")
    if getattr(recipe.data, "fold", None) == "all":
        return _run_folds(recipe, arguments)
    from spanets.tasks import load_task
    from spanets.training.engine import train_claimed
    from spanets.training.report import describe_results
    from spanets.training.run_folder import claim_run_folder

    with claim_run_folder(recipe, arguments.recipe, arguments.out, arguments.resume) as out:
        results = train_claimed(recipe, out, resume=arguments.resume)
    describe_metrics = load_task(recipe.task).describe_metrics
    say_described(lambda shown: describe_results(shown, describe_metrics(shown)), results)
    _report(out, recipe.data.workers)
    return 0


def _report(out: Path, workers: int) -> None:
    """Writes the page of a finished run; a failure is a warning, because the run is complete."""
    from spanets.runs.file_names import REPORT
    from spanets_runtime.errors import first_line

    try:
        from spanets.report import write_report
        from spanets.training.options import EvalOptions

        report = write_report(out, options=EvalOptions(workers=workers, trusted=True))
    except Exception as error:
        tell(f"spanets: warning: {out / REPORT}: not written ({first_line(error)})")
    else:
        say(f"report: {report.path}")


def _run_folds(recipe: Recipe, arguments: argparse.Namespace) -> int:
    """Trains on every fold and prints mean and interval of each metric."""
    from spanets.tasks import load_task
    from spanets.training.folds import describe_folds, train_folds
    from spanets.training.run_folder import claim_run_folder

    with claim_run_folder(recipe, arguments.recipe, arguments.out, arguments.resume) as out:
        results = train_folds(recipe, out, resume=arguments.resume)
    parts = " and ".join(dict.fromkeys(fold["data"] for fold in results["folds"].values()))
    say()
    say(f"{len(results['folds'])} folds, each measured on {parts}")
    header = ["metric", "mean", "95 % interval", "lowest", "highest", "folds"]
    print_table(header, describe_folds(results))
    say(f"numbers: {out / 'folds.json'}")
    if (joined := results.get("out_of_fold")) is not None:
        say("all images, each by the fold that was not trained on it:")
        say_described(load_task(recipe.task).describe_metrics, joined)
    return 0
