"""Errors that end a run early."""

from spanets_runtime.errors import UserError


class DivergedError(UserError):
    """The loss became NaN or infinite."""


class StoppedError(UserError):
    """A signal stopped the run after it was saved; the exit status is the shell's for SIGTERM."""

    exit_status = 128 + 15
