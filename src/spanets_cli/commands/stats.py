"""`spanets stats`: measures a data set before training, and says what looks odd."""

import argparse
from typing import TYPE_CHECKING, Any

from spanets_cli.base_parser import Parser
from spanets_cli.option_types import local_path, value_range, whole
from spanets_cli.output import print_json, print_notes, say_described, tell
from spanets_cli.shared_options import add_workers

if TYPE_CHECKING:
    from spanets.data.statistics.tables import TableKeys
    from spanets_runtime.arrays import PixelFormat

HELP = "measure a data set: what is in it, what looks odd, mean and deviation"

EPILOG = """\
examples:
  spanets stats photos                     photos/cat/1.jpg, or photos/train/cat/1.jpg
  spanets stats photos --out photos-stats  also writes a sheet of pictures, JSON and YAML
  spanets stats labels.csv --images photos --columns '{label: species}'
  spanets stats labels.csv --label-columns '[tag_*]'        several labels an image
  spanets stats labels.csv --targets '[age, height]'        numbers
  spanets stats animals                    COCO, YOLO, masks, ...: see docs/formats.md

The exit status is 1 if an image cannot be read.
"""


def add_options(parser: Parser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "data",
        type=local_path,
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
    parser.add_argument(
        "--images", type=local_path, metavar="DIR", help="tables: as data.images in a recipe"
    )
    parser.add_argument(
        "--columns",
        metavar="{ROLE: NAME}",
        help="tables: as data.columns in a recipe, such as '{label: species}'",
    )
    parser.add_argument(
        "--task",
        choices=("classification", "multilabel", "regression"),
        help="tables: one class an image, several labels, or numbers (default: found where the "
        "cells leave no doubt, with a line that says so)",
    )
    for name, words in (
        ("separator", "several labels an image: as data.separator in a recipe"),
        ("label-columns", "columns of 0 and 1: as data.label_columns, such as '[tag_*]'"),
        ("targets", "numbers: as data.targets, such as '[age, height]'"),
    ):
        parser.add_argument(f"--{name}", metavar="WORDS", help=f"tables, {words}")
    parser.add_argument(
        "--from", dest="format", metavar="FORMAT", help="annotated images: as convert --from"
    )
    parser.add_argument(
        "--out",
        type=local_path,
        metavar="DIR",
        help="folder for sheet.png, stats.json and stats.yaml",
    )
    parser.add_argument(
        "--channels",
        type=whole(1, 16),
        metavar="N",
        help="channels of the images, read with 8 or 16 bits or float (default: 8-bit RGB)",
    )
    parser.add_argument(
        "--value-range",
        type=value_range,
        metavar="LOW,HIGH",
        help="with --channels: the numbers that become 0 and 1, as data.value_range",
    )
    parser.add_argument(
        "--bands",
        metavar="NAME,...",
        help="names of the channels if each is a file, as data.bands; sets --channels",
    )
    _add_keys(parser)
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


_KEYS = (
    *("source", "images", "columns", "separator", "label_columns", "targets"),
    *("channels", "value_range", "bands"),
)


def _add_keys(parser: Parser) -> None:
    """Adds each option under the name of its key in a recipe, too, because messages name keys."""
    for action in [*parser.added]:
        if action.dest in _KEYS:
            parser.add_argument(
                f"--data.{action.dest}",
                dest=action.dest,
                type=action.type,
                choices=action.choices,
                help=argparse.SUPPRESS,
            )


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Measures a data set and prints the results; returns 1 if an image cannot be read."""
    from spanets.data.statistics.text import describe_statistics
    from spanets.formats.statistics import describe_source

    results = describe_source(
        arguments.data,
        arguments.source,
        arguments.workers,
        arguments.out,
        _read_keys(arguments),
        arguments.format,
        _pixels(arguments),
    )
    for line in results["unreadable"]:
        tell(f"spanets: {line}")
    print_notes(results["notes"])
    status = int(results["unreadable_images"] > 0)
    if arguments.json:
        return print_json(results) or status
    say_described(describe_statistics, results)
    return status


def _read_keys(arguments: argparse.Namespace) -> "TableKeys":
    """Returns how a table is read, from the options about tables."""
    from spanets.data.statistics.tables import TableKeys
    from spanets.recipe.values import read_word
    from spanets_runtime.errors import UsageError

    def read(name: str, wanted: Any, example: str) -> Any:
        text = getattr(arguments, name)
        option = f"--{name.replace('_', '-')}"
        try:
            return None if text is None else read_word(text, wanted, option)
        except TypeError:
            raise UsageError(f"{option} is {text!r}, must be {example}") from None

    columns = read("columns", dict[str, str | None], "names by purpose, such as '{label: species}'")
    own = {
        "separator": arguments.separator,
        "label_columns": read("label_columns", list[str], "names, such as '[red, tag_*]'"),
        "targets": read("targets", list[str], "names, such as '[age, height]'"),
    }
    own = {name: value for name, value in own.items() if value is not None}
    return TableKeys(arguments.images, columns, arguments.task, own)


def _pixels(arguments: argparse.Namespace) -> "PixelFormat | None":
    """Returns how images are read, from --channels, --value-range and --bands."""
    from spanets_runtime.arrays import PixelFormat
    from spanets_runtime.errors import UsageError

    bands = arguments.bands.split(",") if arguments.bands else []
    channels = arguments.channels or len(bands) or None
    if channels is None and arguments.value_range:
        raise UsageError("--value-range goes with --channels")
    values = {"channels": channels, "value_range": arguments.value_range, "bands": bands}
    try:
        return PixelFormat.parse(values)
    except ValueError as error:
        raise UsageError(f"--bands: {error}") from None
