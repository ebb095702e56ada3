"""What this machine has: its processor, and how many processes or threads are sensible on it."""

import os
import platform
from pathlib import Path

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


def processor_name() -> str:
    """Returns the processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()
