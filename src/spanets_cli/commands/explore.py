"""`spanets explore`: a page, or files, that show what networks do to images and frequencies."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets_cli.limits import MOST_COUNT
from spanets_cli.option_types import fraction, local_path, positive, whole
from spanets_cli.output import say, tell
from spanets_cli.programs import refuse_program
from spanets_cli.shared_options import add_pretrained, add_weights

if TYPE_CHECKING:
    from spanets.explore.workbench import Settings, Workbench

HELP = "open a page on this machine to look into models: answers, frequencies, balance"

EPILOG = """examples:
  spanets explore runs/cells/last.ckpt --images photos
  spanets explore spanet_nano --no-pretrained --panel balance --image photo.jpg --out balance"""

NAMES = ("look", "frequencies", "balance", "tradeoff", "compare", "detect")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "models",
        type=local_path,
        nargs="*",
        metavar="MODEL",
        help="models' names and checkpoints of any task (default: spanet_nano)",
    )
    parser.add_argument(
        "--images", type=local_path, metavar="DIR", help="folder of images to choose from"
    )
    parser.add_argument("--port", type=whole(1, 65535), help="port (default: the first free one)")
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        help="address to listen on; others than this machine's own let other machines in",
    )
    add_weights(parser)
    add_pretrained(parser)
    files = parser.add_argument_group("files instead of a page")
    files.add_argument("--panel", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    files.add_argument(
        "--out", type=local_path, metavar="DIR", help="folder for pictures and numbers"
    )
    files.add_argument("--image", type=local_path, metavar="FILE", help="the image")
    files.add_argument(
        "--band",
        nargs=2,
        type=_edge,
        metavar=("LOW", "HIGH"),
        help="band of frequencies that is kept, fractions of Nyquist",
    )
    files.add_argument("--side", type=whole(2, 512), metavar="BINS", help="size of masks and gains")
    files.add_argument("--stage", metavar="NAME", help="such as stages.0, or all")
    files.add_argument("--balance", nargs="+", type=fraction, metavar="λ", help="λ of each head")
    files.add_argument("--score", type=fraction, metavar="S", help="smallest score (default: 0.5)")
    files.add_argument(
        "--limit",
        type=whole(1, MOST_COUNT),
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
    if arguments.panel is not None:
        check_usage(arguments)
        return _write(open_bench(arguments), arguments)
    if given := [option for option in _given(arguments) if option not in _OF_THE_PAGE]:
        raise UsageError(f"{given[0]} is for files; add --panel NAME --out DIR, or leave it out")
    require("gradio", "explore")
    bench = open_bench(arguments)
    from spanets.explore.server import HOST, LOOPBACK, serve

    host = arguments.host or HOST
    if host not in LOOPBACK:
        tell(f"--host {host}: everyone who reaches this address can use the page")
    serve(bench, host, arguments.port, say)
    return 0


_OF_THE_PAGE = ("--images", "--host", "--port")


def check_usage(arguments: argparse.Namespace) -> None:
    """Checks, before a model is opened, what files of a panel need.

    Raises:
        UserError: options and panel do not go together, or files cannot be written.
    """
    from spanets.explore.panels import check_panel
    from spanets.explore.results import check_numbers

    check_panel(arguments.panel, len(_words(arguments)), [*_given(arguments)])
    check_numbers(Path(arguments.out))


def _words(arguments: argparse.Namespace) -> list[str]:
    return arguments.models or ["spanet_nano"]


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the values that the user gave, by option, without those that open models."""
    from spanets.explore.panels import OPTIONS

    options = (*OPTIONS.values(), "--host", "--port")
    values = {option: getattr(arguments, option.removeprefix("--")) for option in options}
    return {option: value for option, value in values.items() if value is not None}


def _opening(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Returns the options that choose the models' weights, as the user gave them."""
    weights = () if arguments.weights is None else ("--weights", arguments.weights)
    if arguments.pretrained is None:
        return weights
    return (*weights, "--pretrained" if arguments.pretrained else "--no-pretrained")


def open_bench(arguments: argparse.Namespace) -> "Workbench":
    """Opens the models and the folder; tells of weights that are random.

    Raises:
        UserError: a model cannot be opened, or the folder has no images.
    """
    from spanets.explore.workbench import Workbench
    from spanets.sources import describe_weights, open_source
    from spanets_runtime.errors import UsageError

    words = _words(arguments)
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
    bench = Workbench(sources, folder, _opening(arguments))
    if folder is not None:
        for note in bench.listing.notes():
            tell(note)
    return bench


def _write(bench: "Workbench", arguments: argparse.Namespace) -> int:
    from spanets.explore.panels import PANELS, command_of
    from spanets.explore.results import save

    settings, words, panel = _settings(arguments), [*bench.models], arguments.panel
    shown = PANELS[panel].show(bench, words, settings)
    command = command_of(bench, panel, words, settings, settings.image)
    for path in save(shown, Path(arguments.out), command):
        say(path)
    for title, answers in shown.answers.items():
        text = "  ".join(f"{label} {value:.3f}" for label, value in answers.items())
        say(f"{title}: {text}")
    for note in shown.notes:
        tell(note)
    return 0


def _settings(arguments: argparse.Namespace) -> "Settings":
    from spanets.explore.panels import OPTIONS
    from spanets.explore.workbench import Settings

    given = _given(arguments)
    values = {name: given[option] for name, option in OPTIONS.items() if option in given}
    values.pop("images", None)
    if "band" in values:
        values["low"], values["high"] = values.pop("band")
    if "balance" in values:
        values["balance"] = tuple(values["balance"])
    return Settings(**values)
