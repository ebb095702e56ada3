"""`spanets push`: publishes a classifier."""

import argparse
from pathlib import Path

from spanets_cli.option_types import local_path
from spanets_cli.output import say
from spanets_cli.programs import refuse_program

HELP = "publish a classifier in timm's format, or as a Hugging Face Space"

EPILOG = """\
examples:
  spanets push runs/photos/last.ckpt --to published --licence mit     a folder
  spanets push runs/photos/last.ckpt --to hf-hub:owner/name --licence mit
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("checkpoint", type=local_path, metavar="CHECKPOINT")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--to",
        type=local_path,
        metavar="DIR|hf-hub:OWNER/NAME",
        help="a folder, or a repository on the Hugging Face hub",
    )
    place.add_argument(
        "--space",
        type=local_path,
        metavar="OWNER/NAME|DIR",
        help="a Space that shows the model with `spanets explore`; a folder begins with ./ or /",
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
    is_space = arguments.space is not None
    written = publish(
        Path(arguments.checkpoint),
        space_place(arguments.space) if is_space else arguments.to,
        arguments.licence,
        arguments.message,
        is_space,
    )
    for place in written:
        say(place)
    return 0


def space_place(word: str) -> str:
    """Returns the destination of a Space, as `publish` takes it: OWNER/NAME is on the hub."""
    from spanets.sources import HUB

    if word.startswith(HUB):
        return word
    is_folder = word.startswith((".", "/")) or "/" not in word or Path(word).is_dir()
    return str(Path(word)) if is_folder else f"{HUB}{word}"
