"""`spanets stats`: measures a data set before training, and says what looks odd."""

import argparse

from spanets_cli.output import print_json, print_notes, say_described, tell
from spanets_cli.shared_options import add_workers

HELP = "measure a data set: what is in it, what looks odd, mean and deviation"

EPILOG = """The exit status is 1 if an image cannot be read.

  spanets stats photos                     photos/cat/1.jpg, or photos/train/cat/1.jpg
  spanets stats photos --out photos-stats  also writes a sheet of pictures, JSON and YAML"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "data", metavar="DATA", help="folder of images, of class folders, or of train/ and val/"
    )
    parser.add_argument(
        "--source",
        choices=("folder", "webdataset", "hf"),
        default="folder",
        help="kind of data set, as data.source in a recipe (default: folder)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for sheet.png, stats.json and stats.yaml"
    )
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Measures a data set and prints the results; returns 1 if an image cannot be read."""
    from spanets.data.statistics.report import describe_data, describe_statistics

    results = describe_data(arguments.data, arguments.source, arguments.workers, arguments.out)
    for line in results["unreadable"]:
        tell(f"spanets: {line}")
    print_notes(results["notes"])
    status = int(results["unreadable_images"] > 0)
    if arguments.json:
        return print_json(results) or status
    say_described(describe_statistics, results)
    return status
