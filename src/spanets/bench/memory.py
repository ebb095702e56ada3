"""Measures the peak memory that a step adds."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch


def peak_memory(step: Callable[[], object], device: str = "cpu") -> int | None:
    """Runs a step and returns how many bytes of memory it added, at its peak.

    On the CPU this is the process's resident memory, which only Linux reports; None elsewhere.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return _peak_resident(step)


def _peak_resident(step: Callable[[], object]) -> int | None:
    reset = Path("/proc/self/clear_refs")
    try:
        _return_free_memory()
        reset.write_text("5")  # resets the peak
        before = _status("VmRSS")
        step()
        return max(0, _status("VmHWM") - before)
    except OSError:
        step()
        return None


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {key} in /proc/self/status")


def _return_free_memory() -> None:
    """Makes the C library return freed memory; reusing it would hide what this step needs."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
