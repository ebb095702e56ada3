"""Answers the shell's question for the next word; `spanets completion` prints its side of it.

Nothing of the library is imported: the names come from files that tests compare with the library.
"""

import json
import os
from argparse import Action
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from spanets_cli.base_parser import Parser

KEYS = Path(__file__).with_name("recipe_keys.json")
"""The keys of all recipes, each with its allowed words; `make docs-keys` writes it."""


def is_completing() -> bool:
    """Whether the shell runs the program to complete a word."""
    return "_ARGCOMPLETE" in os.environ


def complete(parser: Parser, commands: Iterable[Parser]) -> None:
    """Writes the words that may come next where the shell wants them, and ends the process."""
    import argcomplete

    for command in commands:
        for action in command.added:
            if "MODEL" in str(action.metavar or action.dest).upper():
                _complete_with(action, _models)
            elif action.dest == "recipe":
                _complete_with(action, _recipes)
                _add_keys(command)
    argcomplete.autocomplete(parser, always_complete_options=False)


def _complete_with(action: Action, names: Any) -> None:
    """Completes a word with names, and with files."""
    from argcomplete.completers import FilesCompleter

    files = FilesCompleter()
    cast(Any, action).completer = lambda prefix, **given: [*names(), *files(prefix, **given)]


def _models() -> list[str]:
    from spanets_runtime.model_table import model_table

    return [row["model"] for row in model_table()]


def _recipes() -> list[str]:
    """Returns the names of the package's recipes."""
    package = find_spec("spanets")
    places = package.submodule_search_locations if package else None
    folders = [Path(place) / "recipes" for place in places or ()]
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in folders
        for path in folder.rglob("*.yaml")
    )


def _add_keys(train: Parser) -> None:
    """Makes every recipe key an option of `train`."""
    for key, words in json.loads(KEYS.read_text(encoding="utf-8")).items():
        train.add_argument(f"--{key}", choices=words or None)
