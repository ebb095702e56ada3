"""argparse's parser with one-line error messages, and options under headings."""

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from spanets_cli.option_groups import GROUP_OF
from spanets_cli.streams import SafeStream
from spanets_runtime.terminal import is_styled
from spanets_runtime.text import escape_controls, shorten


class Parser(argparse.ArgumentParser):
    """Prints errors in one line, and help with headings, coloured on a terminal.

    Attributes:
        added: The arguments, without those in groups of a command's own.
    """

    def __init__(self, **options: Any) -> None:
        self._headings: dict[str, Any] = {}
        self.added: list[argparse.Action] = []
        super().__init__(**{"formatter_class": make_formatter, **options})

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Adds an argument under the heading of its name."""
        title = GROUP_OF.get(names[-1]) if names else None
        if title is None:
            action = super().add_argument(*names, **options)
        else:
            if title not in self._headings:
                self._headings[title] = self.add_argument_group(title)
            action = self._headings[title].add_argument(*names, **options)
        self.added.append(action)
        return action

    def print_help(self, file: Any = None) -> None:
        """Prints the help, with its colours where the stream is a terminal."""
        file = sys.stdout if file is None else file
        write = file.write_styled if isinstance(file, SafeStream) else file.write
        write(self.format_help())

    def refuse_words(self, words: Sequence[str]) -> NoReturn:
        """Exits with status 2 for words that the command lacks; names the nearest option."""
        hint = ""
        if option := next((word.split("=")[0] for word in words if word.startswith("-")), None):
            known = re.findall(r"--[a-z][a-z-]*", self.format_usage())
            close = get_close_matches(option, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
        self.error(f"unrecognized arguments: {shorten(' '.join(words))}{hint}")

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with status 2."""
        shown = shorten(escape_controls(message), 1000)
        self.exit(2, f"spanets: {shown} (see {self.prog} --help)\n")


def make_formatter(prog: str) -> argparse.HelpFormatter:
    """Returns a formatter that keeps the line ends of texts; rich's where output is a terminal."""
    if not is_styled(sys.stdout):
        return argparse.RawDescriptionHelpFormatter(prog)
    from rich_argparse import RawDescriptionRichHelpFormatter

    RawDescriptionRichHelpFormatter.group_name_formatter = str  # it would capitalize each word
    RawDescriptionRichHelpFormatter.text_markup = False  # brackets are brackets
    RawDescriptionRichHelpFormatter.help_markup = False
    return RawDescriptionRichHelpFormatter(prog)


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
