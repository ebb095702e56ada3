"""Errors caused by user input: one line that says what is wrong and what to do.

The command line prints a `UserError` as one line and exits with status 2 (`UsageError`: the command
or recipe is wrong) or 1 (the command failed). Any other exception is a bug and keeps its traceback.
A programmer's mistake raises an assertion, `ValueError` or `TypeError`.
"""

import errno
import os
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TypeGuard

from spanets_runtime.text import escape_controls


class UserError(Exception):
    """A command failed for a reason that the user can fix; the message is one line."""

    exit_status = 1

    def __str__(self) -> str:
        """Returns the message on one line, with control characters escaped."""
        return escape_controls(super().__str__())


class UsageError(UserError):
    """A command, key or value is wrong."""

    exit_status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Texts in errors of torch, ONNX Runtime and Python when memory is full.
_NO_SHARED_MEMORY = ("shared memory", "/torch_", "Bus error")
_NO_MEMORY = (
    *("can't allocate memory", "Cannot allocate memory", "bad_alloc", "bad allocation"),
    *("Failed to allocate memory", "can't start new thread"),
)


def missing_memory(error: BaseException) -> str | None:
    """Returns a message on what to lower if an error means full memory; None for other errors.

    For a `UserError` whose message does not mention memory, its cause is checked.
    """
    text = str(error)
    if isinstance(error, UserError):
        cause = None if "memory" in text else error.__cause__
        return None if cause is None else missing_memory(cause)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return (
            "the GPU's memory is full; train with a larger trainer.accumulate or a smaller "
            "optim.batch_size, evaluate with a smaller --batch"
        )
    is_told = isinstance(error, RuntimeError) and any(words in text for words in _NO_SHARED_MEMORY)
    if is_told or _lacks_semaphores(error):
        return (
            "shared memory (/dev/shm) is full; set data.workers or --workers to 0, or give it "
            "more room"
        )
    full = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if full or any(words in text for words in _NO_MEMORY):
        return (
            "memory is full; train with fewer data.workers, a larger trainer.accumulate or a "
            "smaller optim.batch_size, evaluate with a smaller --batch, export and time with a "
            "smaller --size"
        )
    return None


def _lacks_semaphores(error: BaseException | None) -> bool:
    """Returns whether an error, or one in its context, comes from creating a lock for processes.

    These locks need shared memory; the system says "no space left" without a file name.
    """
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        is_lock = bool(frames) and frames[-1].f_code.co_filename.endswith("synchronize.py")
        if is_lock and getattr(error, "errno", None) == errno.ENOSPC:
            return True
        error = error.__context__
    return False


def describe_system_error(error: OSError) -> str:
    """Returns the path of a system error, if it has one, and the reason."""
    reason = error.strerror or first_line(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if _is_path(error.filename) else reason


def _is_path(value: object) -> TypeGuard[str | bytes]:
    return isinstance(value, str | bytes) and bool(value)


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency.

    Args:
        module: Module to import.
        extra: The extra that installs it, for the message.

    Raises:
        UserError: it is not installed, or older than the extra requires.
    """
    package = module.split(".")[0]
    if (outdated := _describe_outdated(package)) is not None:  # an old one may fail on import
        raise UserError(f"{outdated}; run: pip install --upgrade 'spanets[{extra}]'")
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or package != error.name.split(".")[0]:
            raise
        raise UserError(
            f"{package} is not installed; run: pip install 'spanets[{extra}]'"
        ) from None


@cache
def _describe_outdated(package: str) -> str | None:
    """Returns a message if the installed version is too old, else None."""
    # Imported here, because `spanets --help` needs neither and they take as long as the rest of it.
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    name = canonicalize_name(package)
    for line in _requirements():
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) != name:
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:  # missing, or under another name, such as onnxruntime-gpu
            return None
        if not requirement.specifier.contains(installed, prereleases=True):
            return f"{name} {installed} is installed, {requirement.specifier} is needed"
    return None


def _requirements() -> list[str]:
    """Returns the requirements of this package with all extras; [] if it is not installed."""
    from importlib.metadata import PackageNotFoundError, requires  # as above

    try:
        return requires("spanets") or []
    except PackageNotFoundError:
        return []
