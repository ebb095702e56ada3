"""What goes wrong because of a user's input: said in one line, with what to do about it.

The command line turns a `UserError` into that line and exit status 2 (`UsageError`: the command
or recipe was wrong) or 1 (the run could not be done); anything else is a defect of ours and keeps
its traceback. Programmers' mistakes are assertions or the built-in `ValueError` / `TypeError`.
"""

import errno
import os
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from types import ModuleType
from typing import TypeGuard

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


# What torch, ONNX Runtime and Python say when there is no room: in one of their own errors.
_NO_SHARED_MEMORY = ("shared memory", "/torch_", "Bus error")
_NO_MEMORY = (
    *("can't allocate memory", "Cannot allocate memory", "bad_alloc", "bad allocation"),
    *("Failed to allocate memory", "can't start new thread"),
)


def missing_memory(error: BaseException) -> str | None:
    """Says what to lower where an error tells that memory is full; None for other errors.

    An error that a `UserError` was raised from counts, if its message does not speak of memory.
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
    """Tells whether an error, or one that it hides, is of a lock of processes without room.

    The locks lie in shared memory as well; the system says "no space left" and names no file.
    """
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        is_lock = bool(frames) and frames[-1].f_code.co_filename.endswith("synchronize.py")
        if is_lock and getattr(error, "errno", None) == errno.ENOSPC:
            return True
        error = error.__context__
    return False


def describe_system_error(error: OSError) -> str:
    """Returns the path that a system call could not use, and why."""
    reason = error.strerror or first_line(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if _is_path(error.filename) else reason


def _is_path(value: object) -> TypeGuard[str | bytes]:
    return isinstance(value, str | bytes) and bool(value)


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency, naming the extra that brings it.

    Raises:
        UserError: it is not installed, or older than the extra asks for.
    """
    package = module.split(".")[0]
    if (outdated := _describe_outdated(package)) is not None:  # its import may fail in other words
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
    """Says which version is installed and which are needed, or None where it is one of these."""
    from packaging.requirements import Requirement  # half of the time that this module takes
    from packaging.utils import canonicalize_name

    name = canonicalize_name(package)
    for line in _requirements():
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) != name:
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:  # nor is it, or by another name, such as onnxruntime-gpu
            return None
        if not requirement.specifier.contains(installed, prereleases=True):
            return f"{name} {installed} is installed, {requirement.specifier} is needed"
    return None


def _requirements() -> list[str]:
    """Returns what this package asks for, with all extras; nothing where it is not installed."""
    try:
        return requires("spanets") or []
    except PackageNotFoundError:
        return []
