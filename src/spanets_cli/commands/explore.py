"""`spanets explore`: a page, or files, that show what networks do to images and frequencies."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets_cli.limits import MOST_COUNT
from spanets_cli.option_types import fraction, positive, whole
from spanets_cli.output import say, tell
from spanets_cli.programs import refuse_program
from spanets_cli.shared_options import add_pretrained, add_weights

if TYPE_CHECKING:
    from spanets.explore.workbench import Workbench

HELP = "open a page on this machine to look into models: answers, frequencies, balance"

EPILOG = """examples:
  spanets explore runs/cells/last.ckpt --images photos
  spanets explore spanet_nano --no-pretrained --panel balance --image photo.jpg --out balance"""

NAMES = ("look", "frequencies", "balance", "tradeoff", "compare", "detect")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="models' names and checkpoints of any task (default: spanet_nano)",
    )
    parser.add_argument("--images", metavar="DIR", help="folder of images to choose from")
    parser.add_argument("--port", type=whole(1, 65535), help="port (default: the first free one)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; others than this machine's own let other machines in",
    )
    add_weights(parser)
    add_pretrained(parser)
    files = parser.add_argument_group("files instead of a page")
    files.add_argument("--panel", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    files.add_argument("--out", metavar="DIR", help="folder for pictures and numbers")
    files.add_argument("--image", metavar="FILE", help="the image")
    files.add_argument(
        "--band",
        nargs=2,
        type=_edge,
        default=(0.0, 1.5),
        metavar=("LOW", "HIGH"),
        help="band of frequencies that is kept, fractions of Nyquist",
    )
    files.add_argument(
        "--side", type=whole(2, 512), default=14, metavar="BINS", help="size of masks and gains"
    )
    files.add_argument("--stage", default="", metavar="NAME", help="such as stages.0, or all")
    files.add_argument(
        "--balance", nargs="+", type=fraction, default=(), metavar="λ", help="λ of each head"
    )
    files.add_argument(
        "--score", type=fraction, default=0.5, metavar="S", help="smallest score (default: 0.5)"
    )
    files.add_argument(
        "--limit",
        type=whole(1, MOST_COUNT),
        default=200,
        metavar="N",
        help="images of the folder (default: 200)",
    )


def _edge(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0.0") else positive(text)


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Serves the page until it is interrupted, or writes the files of a panel."""
    from spanets_runtime.errors import UsageError, require

    if (arguments.panel is None) != (arguments.out is None):
        raise UsageError("--panel and --out go together; leave both out for the page")
    require("matplotlib", "explore")
    if arguments.panel is None:
        require("gradio", "explore")
    bench = open_bench(arguments)
    if arguments.panel is not None:
        return _write(bench, arguments)
    from spanets.explore.server import LOOPBACK, serve

    if arguments.host not in LOOPBACK:
        tell(f"--host {arguments.host}: everyone who reaches this address can use the page")
    serve(bench, arguments.host, arguments.port, say)
    return 0


def open_bench(arguments: argparse.Namespace) -> "Workbench":
    """Opens the models and the folder; tells of weights that are random.

    Raises:
        UserError: a model cannot be opened, or the folder has no images.
    """
    from spanets.explore.workbench import Workbench
    from spanets.sources import describe_weights, open_source
    from spanets_runtime.errors import UsageError

    words = arguments.models or ["spanet_nano"]
    if arguments.weights is not None and len(words) > 1:
        raise UsageError(f"--weights goes with one model, not with {len(words)}")
    sources: dict[str, Any] = {}
    for word in words:
        refuse_program(word, "explore", "a checkpoint")
        if word in sources:
            raise UsageError(f"{word} is named twice; name each model once")
        pretrained = arguments.pretrained if arguments.weights is None else False
        sources[word] = open_source(word, arguments.weights, pretrained=pretrained)
        sources[word].network.requires_grad_(False)
        for line in (sources[word].report, describe_weights(sources[word])):
            if line is not None:
                tell(line)
    folder = None if arguments.images is None else Path(arguments.images)
    bench = Workbench(sources, folder)
    if folder is not None:
        for note in bench.listing.notes():
            tell(note)
    return bench


def _write(bench: "Workbench", arguments: argparse.Namespace) -> int:
    from spanets.explore.panels import PANELS, command_of
    from spanets.explore.results import save
    from spanets.explore.workbench import Settings

    low, high = arguments.band
    settings = Settings(
        arguments.image or "",
        low,
        high,
        arguments.side,
        arguments.stage,
        tuple(arguments.balance),
        arguments.score,
        arguments.limit,
    )
    words, panel = [*bench.models], arguments.panel
    shown = PANELS[panel].show(bench, words, settings)
    image = arguments.image or ""
    command = command_of(panel, words, settings, arguments.images or "DIR", image)
    for path in save(shown, Path(arguments.out), command):
        say(path)
    for title, answers in shown.answers.items():
        text = "  ".join(f"{label} {value:.3f}" for label, value in answers.items())
        say(f"{title}: {text}")
    for note in shown.notes:
        tell(note)
    return 0
