"""Of the processes that torchrun started, only rank 0 prints."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spanets_runtime.ranks import Rank

GRACE = 5.0
"""Seconds in which rank 0 may report an error that all ranks have, before another rank does."""


@contextmanager
def only_first_prints() -> Iterator["Rank"]:
    """Silences every rank but 0, except for its errors, which then name the rank.

    Raises:
        UsageError: the environment names no valid rank.
    """
    from spanets_runtime.errors import UserError
    from spanets_runtime.ranks import find_rank

    rank = find_rank()
    if rank.is_first:
        yield rank
        return
    try:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            yield rank
    except UserError as error:
        time.sleep(GRACE)  # torchrun ends this process when rank 0 fails
        raise type(error)(f"{rank}: {error}") from error


def refuse_several(rank: "Rank", advice: str) -> None:
    """Raises a UsageError if several processes would each do all the work."""
    from spanets_runtime.errors import UsageError

    if rank.count > 1:
        raise UsageError(
            f"WORLD_SIZE is {rank.count}, and {rank.count} processes would each do all the work; "
            f"{advice}, or unset WORLD_SIZE"
        )
