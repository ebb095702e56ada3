"""Argument checks that the mixers share."""

from collections.abc import Sequence


def check_choice(name: str, value: str | None, allowed: Sequence[str | None]) -> None:
    """Raises ValueError, with the allowed values in its message, if value is not one of them."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, allowed: {', '.join(map(str, allowed))}")
