"""`spanets runs`: lists and compares runs."""

import argparse
from typing import Any

from spanets_cli.option_types import local_path
from spanets_cli.output import print_json, print_table, tell

HELP = "list or compare training runs"

EPILOG = """\
examples:
  spanets runs                        all runs under runs/
  spanets runs experiments --sort accuracy
  spanets runs experiments a b        differences between experiments/a and experiments/b
  spanets runs runs/a other/b         differences between two folders
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "paths",
        type=local_path,
        nargs="*",
        metavar="DIR|RUN",
        help="folders of runs (default: runs)",
    )
    parser.add_argument(
        "--sort", metavar="KEY", help="name, status, model, epochs, seconds, started or a metric"
    )
    parser.add_argument(
        "--plot",
        type=local_path,
        metavar="FILE",
        help="draw the learning curves: FILE.png, .svg, .pdf",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Prints a table of runs, or, if several are named, their differences."""
    from spanets.runs.comparing import comparison_rows, find_differences, plot_runs, table_rows
    from spanets.runs.listing import choose_runs, sort_runs

    runs = choose_runs(arguments.paths)
    if arguments.sort is not None:
        runs = sort_runs(runs, arguments.sort)
    if arguments.plot is not None:
        plot_runs(runs, arguments.plot)
    compared = len(arguments.paths) > 1
    if arguments.json:
        found: dict[str, Any] = {"runs": [run.to_dict() for run in runs]}
        if compared:
            found["differences"] = find_differences(runs)
        return print_json(found)
    print_table(*(comparison_rows(runs) if compared else table_rows(runs)))
    for run in runs:
        if run.problem is not None:
            tell(f"{run.name}: {run.status}: {run.problem}")
    return 0
