"""`spanets report`: writes the page of a run."""

import argparse
from pathlib import Path

from spanets_cli.option_types import local_path
from spanets_cli.output import say, tell
from spanets_cli.shared_options import add_workers

HELP = "write one page about a training run"

EPILOG = """\
examples:
  spanets report runs/photos                      writes runs/photos/report.html
  spanets report runs/photos --out photos.html
The page is one HTML file that needs no other: metrics, curves, best and worst images, frequencies,
cost, settings and environment. `spanets train` writes it at its end.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "folder", type=local_path, metavar="RUN", help="run folder; the run need not be finished"
    )
    parser.add_argument(
        "--out", type=local_path, metavar="FILE", help="the page (default: RUN/report.html)"
    )
    parser.add_argument(
        "--data",
        type=local_path,
        metavar="DIR",
        help="data set of the pictures (default: that of the run)",
    )
    add_workers(parser)
    parser.add_argument(
        "--trust-recipe",
        action="store_true",
        help="allow the checkpoint's recipe to choose which images are read or downloaded",
    )


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Writes the page, and prints its path."""
    from spanets_runtime.errors import require

    require("lightning", "train")
    from spanets.report import write_report
    from spanets.training.options import EvalOptions

    options = EvalOptions(arguments.data, workers=arguments.workers, trusted=arguments.trust_recipe)
    out = None if arguments.out is None else Path(arguments.out)
    report = write_report(Path(arguments.folder), out, options)
    for note in report.notes:
        tell(f"not on the page: {note}")
    say(f"report: {report.path} ({report.size / 1e3:.0f} kB)")
    return 0
