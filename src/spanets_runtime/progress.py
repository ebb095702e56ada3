"""The progress bar of all long work."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from spanets_runtime.terminal import bar_colour


def progress(
    items: Iterable[Any] | None = None,
    description: str = "",
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    hidden: bool = False,
) -> "tqdm[Any]":
    """Returns a progress bar: only on a terminal, only after two seconds, gone when it is closed.

    Args:
        items: What to iterate over; None for a bar that `update` moves.
        description: Word before the bar.
        total: Number of items, where `items` has no length.
        initial: Items that were done before.
        unit: Unit of an item; "B" shows multiples (kB, MB).
        hidden: Whether there is no bar even on a terminal.
    """
    return tqdm(
        items,
        description,
        total,
        initial=initial,
        unit=unit,
        unit_scale=unit == "B",
        colour=bar_colour(),
        disable=True if hidden else None,
        leave=False,
        delay=2,
        dynamic_ncols=True,
    )
