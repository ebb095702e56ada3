"""`spanets study`: trains the cells of a study, and judges its claims."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spanets_cli.option_types import local_path, positive
from spanets_cli.output import print_json, print_table, say, tell

HELP = "compare recipes over several seeds, and judge claims by rules written before"

EPILOG = """\
examples:
  spanets study studies/balance.yaml --out runs/balance --dry-run
  spanets study studies/balance.yaml --out runs/balance
  spanets study studies/balance.yaml --out runs/balance --retry --wait
  spanets study studies/balance.yaml --out runs/balance --power 0.005 0.01

The same command again trains what is missing and resumes what was interrupted. Several processes
and machines may work in one folder at the same time. docs/study.md describes the file.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "study", type=local_path, metavar="STUDY.yaml", help="file with question, factors and rules"
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="DIR", help="folder of the study"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="count cells and hours, and train nothing"
    )
    parser.add_argument("--retry", action="store_true", help="try failed cells again")
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for cells that other processes train (default: leave them)",
    )
    parser.add_argument(
        "--power",
        type=positive,
        nargs="+",
        metavar="SIZE",
        help="also print how many seeds differences of this size need, in the metric's unit",
    )
    parser.add_argument(
        "--trust-recipe",
        action="store_true",
        help="allow the study to set URLs to download from and folders to write to",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Runs a study, or counts what is left of it; prints the table and the verdicts."""
    from spanets.experiments.launchers import stand_alone
    from spanets.experiments.study_file import read_study
    from spanets_runtime.errors import UsageError, require

    if arguments.dry_run and arguments.power:
        raise UsageError("--power needs the results of cells, and --dry-run trains none")
    study, out = read_study(arguments.study), Path(arguments.out)
    stand_alone()  # before Lightning is imported
    for module in ("lightning", "torchmetrics", "tensorboard", "matplotlib"):
        require(module, "train")
    from spanets.experiments.summary import describe_powers
    from spanets.experiments.work import plan_study, run_study

    if arguments.dry_run:
        found = plan_study(study, out, tell, arguments.retry, arguments.trust_recipe)
        return print_json(found) if arguments.json else _print_plan(found, study.question)
    results = run_study(study, out, tell, arguments.retry, arguments.wait, arguments.trust_recipe)
    status = 1 if results["counts"].get("failed") else 0
    sizes = arguments.power or []
    if arguments.json:
        told = {"power": describe_powers(results, sizes)} if sizes else {}
        return max(print_json({**results, **told}), status)
    _print(results, sizes, out)
    return status


def _print_plan(found: Mapping[str, Any], question: str) -> int:
    from spanets.experiments.planning import describe_hours

    say(question)
    counts = ", ".join(f"{count} {status}" for status, count in found["counts"].items())
    say(f"{len(found['cells'])} cells: {counts}")
    say(describe_hours(found))
    for cell in found["cells"]:
        if cell["problem"] is not None:
            tell(f"failed: {cell['cell']}: {cell['problem']}")
    return 0


def _print(results: Mapping[str, Any], sizes: Sequence[float], out: Path) -> None:
    from spanets.experiments.recording import describe_verdicts, further_rows, table_rows
    from spanets.experiments.summary import describe_powers

    say(results["question"])
    say()
    print_table(*table_rows(results))
    say()
    if (further := further_rows(results)) is not None:
        print_table(*further)
        say()
    for line in (*describe_verdicts(results), *describe_powers(results, sizes)):
        say(line)
    for note in results["notes"]:
        say(f"note: {note}")
    if running := results["counts"].get("running"):
        say(
            f"{running} cells are trained by other processes; repeat the command when they have "
            "ended, or use --wait"
        )
    if results["counts"].get("failed"):
        say("failed cells are tried again with --retry")
    say(f"page: {out / 'study.html'}; numbers: {out / 'results.json'}, {out / 'table.csv'}")
