"""What the benchmark scripts share: interleaved timing, and results with their circumstances."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch

RESULTS = Path(__file__).parent / "results"


def interleave(
    tasks: dict[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Times each task once a round, in turn, so that a slow minute of the machine hits all alike.

    Returns:
        Seconds of every round, by task; the warm-up rounds are left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(warmup + rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
        print(f"\rround {i + 1}/{warmup + rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: values[warmup:] for name, values in seconds.items()}


def summarise(seconds: dict[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Returns median, quartiles and minimum, and the time relative to a reference task.

    The ratio is the median over rounds of the ratio within a round.
    """
    rows = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        ratios = [a / b for a, b in zip(values, seconds[reference], strict=True)]
        rows[name] = {
            "median_s": round(median, 4),
            "quartile1_s": round(low, 4),
            "quartile3_s": round(high, 4),
            "min_s": round(min(values), 4),
            f"relative_to_{reference}": round(statistics.median(ratios), 3),
        }
    return rows


def circumstances() -> dict[str, Any]:
    """Returns date, command, hardware and versions."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def write(name: str, content: dict[str, Any]) -> None:
    """Writes results/NAME.json and prints it."""
    text = json.dumps({"circumstances": circumstances(), **content}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=RESULTS.parent)
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()
