"""What is wrong with a file of weights, and how its names are shown."""

from spanets_runtime.errors import UserError

_MAX_SHOWN = 120


class WeightsError(UserError):
    """A file or state dict that does not fit."""


def show_name(name: str) -> str:
    """Returns a file's own word for a message: short, and without control characters."""
    short = name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"
    return short if short.isprintable() else ascii(short)[1:-1]
