"""`spanets explain`: draws where a classifier looks."""

import argparse

from spanets_cli.option_types import local_path
from spanets_cli.output import print_notes, say, tell
from spanets_cli.programs import refuse_program
from spanets_cli.shared_options import add_weights, open_named

HELP = "draw heat maps of where a classifier looks"

EPILOG = """\
examples:
  spanets explain runs/photos/last.ckpt cat.jpg dog.jpg --out explained
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "checkpoint",
        type=local_path,
        metavar="MODEL|CHECKPOINT",
        help="a model's name (its published weights are fetched once), or a trained classifier",
    )
    parser.add_argument(
        "images", type=local_path, nargs="+", metavar="IMAGE", help="image files or folders"
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="DIR", help="folder for explained.png"
    )
    parser.add_argument(
        "--what", nargs="+", default=None, metavar="NAME", help="context (SPANet only), score-cam"
    )
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="class, label or number to explain (default: the most likely class)",
    )
    parser.add_argument(
        "--site",
        metavar="MODULE",
        help="module that Score-CAM looks at (default: the last stage)",
    )
    add_weights(parser)


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Draws a sheet and prints its path; returns 1 if an image could not be read."""
    from spanets.analysis.study.explain import explain
    from spanets_runtime.listing import gather_images

    refuse_program(arguments.checkpoint, "explain", "a checkpoint")
    gathered = gather_images(arguments.images)
    print_notes(gathered.notes)
    sheet, errors = explain(
        open_named(arguments.checkpoint, arguments.weights),
        gathered.images,
        arguments.out,
        arguments.what,
        arguments.target,
        arguments.site,
    )
    for error in errors:
        tell(f"spanets: {error}")
    say(sheet)
    return int(bool(errors))
