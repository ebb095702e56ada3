"""Timing that is robust on a noisy machine: interleaved steps, medians, recorded hardware."""

import platform
import statistics
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from time import perf_counter, sleep
from typing import Any

import timm
import torch

import spanets
from spanets_runtime.machine import processor_name
from spanets_runtime.progress import progress

Step = Callable[[], object]
"""What is timed: a function without arguments, such as one batch through a model."""

# Seconds to wait for an idle machine. After a run, threads of an onnxruntime session busy-wait for
# up to some tens of milliseconds; another session on the same cores took twice as long.
SESSIONS_SETTLE = 0.1


def interleave(
    steps: Mapping[str, Step],
    rounds: int,
    warmup: int = 1,
    device: str = "cpu",
    settle: float = 0.0,
) -> dict[str, list[float]]:
    """Times each step once per round, in turn, so that a slow minute affects all steps alike.

    Args:
        steps: Callables without arguments, by name.
        rounds: Number of measured rounds.
        warmup: Number of rounds before them.
        device: torch device; on "cuda", the time includes the GPU's work.
        settle: Seconds to wait before each step; `SESSIONS_SETTLE` for steps with their own
            threads. After the wait the step runs once untimed, so that only its threads are awake.

    Returns:
        Seconds of every measured round, by step.
    """
    gpu = torch.device(device).type == "cuda"
    clock = partial(_cuda_seconds, device=device) if gpu else _cpu_seconds
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in progress(range(warmup + rounds), "rounds"):
        for name, step in steps.items():
            if settle:
                sleep(settle)
                step()
            seconds[name].append(clock(step))
    return {name: values[warmup:] for name, values in seconds.items()}


def summarise(seconds: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Returns median, quartiles and minimum, and the time relative to a reference step.

    That ratio is the median over rounds of the ratio within each round.
    """
    rows = {}
    for name, values in seconds.items():
        low, median, high = quartiles(values)
        ratios = [a / b for a, b in zip(values, seconds[reference], strict=True)]
        rows[name] = {
            "median_s": round(median, 6),
            "quartile1_s": round(low, 6),
            "quartile3_s": round(high, 6),
            "min_s": round(min(values), 6),
            f"relative_to_{reference}": round(statistics.median(ratios), 3),
        }
    return rows


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Returns the first quartile, the median and the third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def circumstances(device: str = "cpu") -> dict[str, Any]:
    """Returns date, hardware and versions."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "spanets": spanets.__version__,
    }
    if torch.device(device).type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return found


def _cpu_seconds(step: Step) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start


def _cuda_seconds(step: Step, device: str) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3
