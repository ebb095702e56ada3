"""`spanets shard`: packs images into shards."""

import argparse
import shlex

from spanets_cli.option_types import byte_size, local_path
from spanets_cli.output import print_json, say, tell

HELP = "pack class folders into shards for large-scale training"

EPILOG = """\
examples:
  spanets shard imagenet/train --out shards --size 512MB
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "folder",
        type=local_path,
        metavar="DIR",
        help="folder of class folders, or of train/ and val/",
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="DIR", help="new or unfinished folder"
    )
    parser.add_argument(
        "--size",
        type=byte_size,
        default=512 * 10**6,
        metavar="SIZE",
        help="approximate size of a shard, such as 1GiB (default: 512MB)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Writes shards and prints their contents."""
    from spanets.data.sources.shard_writer import write_shards

    written = write_shards(arguments.folder, arguments.out, arguments.size)
    for note in written["notes"]:
        tell(note)
    if arguments.json:
        return print_json(written)
    for name, part in written["parts"].items():
        size = sum(row["bytes"] for row in part["shards"]) / 1e6
        say(f"{name}: {part['images']} images in {len(part['shards'])} shards, {size:.1f} MB")
    say(f"train from them: --data.source webdataset --data.root {shlex.quote(arguments.out)}")
    return 0
