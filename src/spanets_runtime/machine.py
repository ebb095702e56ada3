"""What this machine has: its cores, and how many processes or threads are sensible on them."""

import os

FEWEST, MOST = 16, 1024


def count_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_parallel() -> int:
    """Returns how many processes or threads one command may start: four a core, at least 16.

    More of them wait for each other, and thousands exhaust the machine.
    """
    return min(MOST, max(FEWEST, 4 * count_cores()))
