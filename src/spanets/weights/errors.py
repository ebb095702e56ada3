"""The error for weights files, and the display of names from them."""

from spanets_runtime.errors import UserError

_MAX_SHOWN = 120


class WeightsError(UserError):
    """A weights file or state dict is unreadable or does not fit the model."""


def show_name(name: str) -> str:
    """Returns a name from a file for a message: shortened, without control characters."""
    short = name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"
    return short if short.isprintable() else ascii(short)[1:-1]
