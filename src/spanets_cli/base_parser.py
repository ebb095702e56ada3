"""argparse's parser with one-line error messages."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from spanets_runtime.text import escape_controls, shorten


class Parser(argparse.ArgumentParser):
    """Prints errors in one line; argparse would add the whole usage text."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with status 2."""
        shown = shorten(escape_controls(message), 1000)
        self.exit(2, f"spanets: {shown} (see {self.prog} --help)\n")


class ShowVersion(argparse.Action):
    """Prints the version of the package; looks it up only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Prints the version and exits."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"spanets {version('spanets')}")
        except PackageNotFoundError:  # a source tree that was never installed
            print("spanets 0.0.0")
        parser.exit()
