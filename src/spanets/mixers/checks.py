"""Checks of arguments that the mixers share."""

from collections.abc import Sequence


def check_choice(name: str, value: str | None, allowed: Sequence[str | None]) -> None:
    """Raises ValueError for a value that is none of those allowed, naming them."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, allowed: {', '.join(map(str, allowed))}")
