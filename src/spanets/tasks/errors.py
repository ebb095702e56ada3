"""Why a run ends early."""

from spanets_runtime.errors import UserError


class DivergedError(UserError):
    """The loss is no number any more; no use in going on."""
