"""The command line: each subcommand parses its arguments and makes one call into the library.

This package is separate from `spanets`, because importing `spanets` loads torch and timm, which
takes seconds, and `--help` must answer at once. The library is imported when a command runs.
"""

import argparse
import sys
import traceback
from collections.abc import Sequence

from spanets_cli.completing import complete, is_completing
from spanets_cli.interrupts import one_interrupt
from spanets_cli.output import OutputLostError, tell
from spanets_cli.parser import (
    check_command,
    check_words,
    make_parser,
    make_parsers,
    split_overrides,
)
from spanets_cli.streams import safe_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 1 for a failed run, 2 for a usage error.

    The status is also 1 if standard output is closed or its disk is full.
    """
    if arguments is None and is_completing():
        complete(*make_parsers())
    words = list(sys.argv[1:] if arguments is None else arguments)
    with one_interrupt(for_good=arguments is None), safe_streams() as output:
        status = answer(words)
    return status or int(output.lost)


def answer(words: list[str]) -> int:
    """Parses and runs a command; an unexpected error prints its traceback."""
    overrides: list[str] = []
    try:
        check_command(words)
        check_words(words)
        if words[:1] == ["train"]:
            words, overrides = split_overrides(words)
        known, others = make_parser().parse_known_args(words or ["--help"])
        if others:
            known.parser.refuse_words(others)
    except SystemExit as leaving:  # --help, or a message is printed
        return int(leaving.code or 0)
    try:
        return run(known, overrides)
    except KeyboardInterrupt:
        tell("spanets: stopped")
    except OutputLostError:  # the reader, such as `head`, closed the pipe
        pass
    except Exception:
        traceback.print_exc()
    return 1


def run(known: argparse.Namespace, overrides: list[str]) -> int:
    """Runs a parsed command; reports an error in the user's input in one line."""
    from spanets_runtime.errors import UserError, describe_system_error, missing_memory

    try:
        return known.run(known, overrides)
    except Exception as error:
        message, status = str(error), getattr(error, "exit_status", 1)
        if (wrong := missing_memory(error) or name_wrong_path(error)) is not None:
            message = wrong
        elif isinstance(error, OSError):  # a path that is too long, or may not be entered
            message = describe_system_error(error)
        elif not isinstance(error, UserError):
            raise
        if known.debug:
            traceback.print_exc()
        tell(f"spanets: {message}")
        return status


def name_wrong_path(error: Exception) -> str | None:
    """Describes a path from a file that no system call accepts; None for other errors."""
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path holds a NUL character; correct the file that names it"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "the home folder is not known; write full paths, without ~"
    return None
