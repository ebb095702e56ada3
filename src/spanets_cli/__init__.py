"""The command line: each subcommand parses its words and makes one call into the library.

This package lies beside the library, not in it: importing `spanets` brings torch and timm, which
takes seconds, and `--help` has to answer at once. The library is imported once a command is known.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence

from spanets_cli.parser import check_command, make_parser, split_overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 1 for a failed run, 2 for a usage error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    overrides: list[str] = []
    if words[:1] == ["train"]:
        words, overrides = split_overrides(words)
    try:
        check_command(words)
        known = make_parser().parse_args(words)
    except SystemExit as leaving:  # --help, or a message is printed
        return int(leaving.code or 0)
    try:
        status = run(known, overrides)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("spanets: stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(known: argparse.Namespace, overrides: list[str]) -> int:
    """Runs a parsed command, and says in one line what is wrong with what the user gave."""
    from spanets_runtime.errors import UserError

    try:
        return known.run(known, overrides)
    except Exception as error:
        message, status = str(error), getattr(error, "exit_status", 1)
        if is_full_gpu(error):
            message = "the GPU's memory is full; train with a larger trainer.accumulate or a "
            message += "smaller optim.batch_size, evaluate with a smaller --batch"
        elif not isinstance(error, UserError):
            raise
        if known.debug:
            traceback.print_exc()
        print(f"spanets: {message}", file=sys.stderr)
        return status


def is_full_gpu(error: Exception) -> bool:
    """Tells whether a GPU's memory is exhausted, without importing torch where nothing has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
