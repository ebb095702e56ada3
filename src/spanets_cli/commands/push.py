"""`spanets push`: publishes a classifier."""

import argparse
from pathlib import Path

from spanets_cli.output import say
from spanets_cli.programs import refuse_program

HELP = "publish a classifier in timm's format"

EPILOG = """\
examples:
  spanets push runs/photos/last.ckpt --to published --licence mit     a folder
  spanets push runs/photos/last.ckpt --to hf-hub:owner/name --licence mit
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument(
        "--to",
        required=True,
        metavar="DIR|hf-hub:OWNER/NAME",
        help="a folder, or a repository on the Hugging Face hub",
    )
    parser.add_argument(
        "--licence",
        metavar="NAME",
        help="licence of the weights, in the hub's spelling, such as mit",
    )
    parser.add_argument("--message", metavar="TEXT", help="commit message on the hub")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Publishes a classifier and prints what was written."""
    from spanets.deploy.publish import publish

    refuse_program(arguments.checkpoint, "push", "a checkpoint")
    written = publish(
        Path(arguments.checkpoint), arguments.to, arguments.licence, arguments.message
    )
    for place in written:
        say(place)
    return 0
