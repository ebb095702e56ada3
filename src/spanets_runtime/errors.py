"""What goes wrong because of a user's input: said in one line, with what to do about it.

The command line turns a `UserError` into that line and exit status 2 (`UsageError`: the command
or recipe was wrong) or 1 (the run could not be done); anything else is a defect of ours and keeps
its traceback. Programmers' mistakes are assertions or the built-in `ValueError` / `TypeError`.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from spanets_runtime.text import escape_controls


class UserError(Exception):
    """A run that cannot be done as asked; the message is one line for the user."""

    exit_status = 1

    def __str__(self) -> str:
        """Returns the message on one line; what a name in it holds cannot act on a terminal."""
        return escape_controls(super().__str__())


class UsageError(UserError):
    """A command, key or value that is wrong as written."""

    exit_status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error of a library says, or its type where that is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency, naming the extra that brings it.

    Raises:
        UserError: the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise UserError(
            f"{module.split('.')[0]} is not installed; run: pip install 'spanets[{extra}]'"
        ) from None
