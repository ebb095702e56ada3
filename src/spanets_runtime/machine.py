"""The machine's processor, and its limit of processes and threads."""

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
    """Returns the limit of processes or threads of a command: four a core, from 16 to 1024.

    More of them would only wait for each other, and thousands would exhaust the machine.
    """
    return min(MOST, max(FEWEST, 4 * count_cores()))


def processor_name() -> str:
    """Returns the processor's name, if the system provides it."""
    return _told("model name") or platform.processor()


def adds_bytes_in_16_bits() -> bool:
    """Whether sums of products of bytes may overflow: x86-64 without VNNI, or where none tells."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return is_x86 and not {"avx512_vnni", "avx_vnni"} & set(_told("flags").split())


def _told(key: str) -> str:
    """Returns what Linux tells of the first core; empty if it does not."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return ""
