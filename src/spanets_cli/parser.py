"""The parser of all commands; parsing imports nothing of the library.

Each command is a module of `spanets_cli.commands`: its one-line `HELP`, `add_options`, and `run`.
"""

from argparse import SUPPRESS
from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType

from spanets_cli.base_parser import Parser, ShowVersion
from spanets_cli.commands import (
    analyze,
    bench,
    completion,
    convert,
    embed,
    evaluate,
    explain,
    explore,
    export,
    models,
    predict,
    push,
    report,
    runs,
    shard,
    stats,
    study,
    train,
    weights,
)
from spanets_runtime.text import shorten

GROUPS: dict[str, dict[str, ModuleType]] = {
    "use a model": {
        "models": models,
        "weights": weights,
        "predict": predict,
        "eval": evaluate,
        "explain": explain,
        "explore": explore,
        "embed": embed,
        "analyze": analyze,
    },
    "train": {
        "train": train,
        "runs": runs,
        "report": report,
        "study": study,
    },
    "prepare data": {
        "stats": stats,
        "convert": convert,
        "shard": shard,
    },
    "deploy": {
        "export": export,
        "bench": bench,
        "push": push,
    },
    "set up": {
        "completion": completion,
    },
}
"""The commands by what a user wants to do, in the order of the help."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

EPILOG = """\
examples:
  spanets predict spanet_small cat.jpg                  the authors' weights, fetched once
  spanets train finetune --data.root photos --model.name spanet_small --out runs/tuned
  spanets eval runs/tuned/last.ckpt --errors mistakes
  spanets export runs/tuned/last.ckpt --out tuned.onnx

"spanets COMMAND --help" shows the options of a command.
"""

OPTIONS = ("--help", "-h", "--version")

# The options of `train` that are not recipe keys, and whether a value follows.
TRAIN_OPTIONS = {
    "--out": True,
    "--resume": False,
    "--print-recipe": False,
    "--trust-recipe": False,
    "--debug": False,
    "--help": False,
}


def check_command(words: Sequence[str]) -> None:
    """Exits if the first word is no command and no option; the message suggests the nearest one."""
    if not words or words[0] in (*COMMANDS, *OPTIONS):
        return
    kind, known = ("option", OPTIONS) if words[0].startswith("-") else ("command", (*COMMANDS,))
    close = get_close_matches(words[0], known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
    Parser(prog="spanets").error(f"unknown {kind} {shorten(repr(words[0]))}{hint}")


def check_words(words: Sequence[str]) -> None:
    """Exits if a word is empty or holds a NUL character, which no file name can hold.

    An empty word usually comes from an unset shell variable. As a path it would mean the current
    folder, so no option accepts it.
    """
    command = f"spanets {words[0]}" if words and words[0] in COMMANDS else "spanets"
    for before, word in zip(["spanets", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if "\0" in word:
            Parser(prog=command).error(f"{shorten(repr(word))} holds a NUL character")
        if not word or (option.startswith("--") and equals and not value):
            what = option or f"the word after {shorten(before)}"
            Parser(prog=command).error(f"{what} is empty; leave it out, or give a value")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the words of `train` into its own options and those that set recipe keys."""
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, _ = word.partition("=")
        target = overrides if word.startswith("--") and option not in TRAIN_OPTIONS else own
        target.append(word)
        takes_value = word.startswith("--") and TRAIN_OPTIONS.get(option, True) and not equals
        if takes_value and rest and not rest[0].startswith("--"):
            target.append(rest.pop(0))
    return own, overrides


def make_parser() -> Parser:
    """Returns the parser of all commands."""
    return make_parsers()[0]


def make_parsers() -> tuple[Parser, list[Parser]]:
    """Returns the parser of all commands, and that of each command."""
    common = Parser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", help="show the traceback if an error occurs"
    )
    parser = Parser(
        prog="spanets",
        usage="spanets [--help] [--version] COMMAND ...",
        description="SPANet and SPANetV2: train, evaluate and use frequency-balancing backbones.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=ShowVersion, help="show the version and exit")
    for title, group in GROUPS.items():
        lines = (f"{name:<10}  {command.HELP}" for name, command in group.items())
        parser.add_argument_group(title, "\n".join(lines))
    # The groups above list the commands; argparse itself can only list them as one.
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, prog="spanets", help=SUPPRESS
    )
    each = []
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            description=command.HELP[0].upper() + command.HELP[1:] + ".",
            epilog=getattr(command, "EPILOG", None),
            parents=[common],
            allow_abbrev=False,
        )
        command.add_options(added)
        added.set_defaults(run=command.run, parser=added)
        each.append(added)
    return parser, each
