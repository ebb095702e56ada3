"""`spanets stats`: measures a data set before training, and says what looks odd."""

import argparse
from typing import Any

from spanets_cli.output import print_json, print_notes, say_described, tell
from spanets_cli.shared_options import add_workers

HELP = "measure a data set: what is in it, what looks odd, mean and deviation"

EPILOG = """The exit status is 1 if an image cannot be read.

  spanets stats photos                     photos/cat/1.jpg, or photos/train/cat/1.jpg
  spanets stats photos --out photos-stats  also writes a sheet of pictures, JSON and YAML
  spanets stats labels.csv --images photos --columns '{label: species}'
  spanets stats animals                    COCO, YOLO, masks, ...: see docs/formats.md"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder of images, of class folders, of train/ and val/, or of annotated images; a "
        "table; or the file that describes annotated images",
    )
    parser.add_argument(
        "--source",
        choices=("folder", "table", "objects", "webdataset", "hf"),
        help="kind of data set: as data.source in a recipe, or objects for annotated images "
        "(default: found for tables and annotated images, else folder)",
    )
    parser.add_argument("--images", metavar="DIR", help="tables: as data.images in a recipe")
    parser.add_argument(
        "--columns",
        metavar="{ROLE: NAME}",
        help="tables: as data.columns in a recipe, such as '{label: species}'",
    )
    parser.add_argument(
        "--from", dest="format", metavar="FORMAT", help="annotated images: as convert --from"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for sheet.png, stats.json and stats.yaml"
    )
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Measures a data set and prints the results; returns 1 if an image cannot be read."""
    from spanets.data.statistics.text import describe_statistics
    from spanets.formats.statistics import describe_source

    results = describe_source(
        arguments.data,
        arguments.source,
        arguments.workers,
        arguments.out,
        _read_columns(arguments.columns),
        arguments.images,
        arguments.format,
    )
    for line in results["unreadable"]:
        tell(f"spanets: {line}")
    print_notes(results["notes"])
    status = int(results["unreadable_images"] > 0)
    if arguments.json:
        return print_json(results) or status
    say_described(describe_statistics, results)
    return status


def _read_columns(text: str | None) -> dict[str, Any] | None:
    from spanets.recipe.values import read_word
    from spanets_runtime.errors import UsageError

    if text is None:
        return None
    try:
        return read_word(text, dict[str, str | None], "--columns")
    except TypeError:
        raise UsageError(
            f"--columns is {text!r}, must be names by purpose, such as '{{label: species}}'"
        ) from None
