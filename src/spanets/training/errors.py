"""Why a run ends early."""

from spanets_runtime.errors import UserError


class DivergedError(UserError):
    """The loss is no number any more; no use in going on."""


class StoppedError(UserError):
    """A signal asked the run to stop, and it is saved as it was; the status is a shell's for it."""

    exit_status = 128 + 15
