"""Measures the time and memory that spectrum statistics add to forward passes.

    python benchmarks/analysis_speed.py [--threads 2] [--images 100] [--batch 10]

The images are random, 224². Each batch goes through a network in turn without and with the
statistics of its token mixers. Then the script measures the peak memory beyond the network, for 20
images and for all.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from common import write
from torch import Tensor, nn

from spanets.analysis import SpectrumStatistics, stream
from spanets.bench.memory import peak_memory
from spanets.bench.timed_models import build_form
from spanets.bench.timing import interleave, summarise

MODELS = ("convnext_tiny", "spanet_small")
SIZE = 224


def images(count: int, batch: int) -> Iterator[Tensor]:
    """Yields random images, one at a time."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, batch):
        yield torch.randn(min(batch, count - start), 3, SIZE, SIZE, generator=generator)


@torch.no_grad()
def forward(model: nn.Module, batch: Tensor) -> None:
    """Runs a forward pass without statistics."""
    model(batch)


def analyse(model: nn.Module, count: int, batch: int) -> None:
    """Runs forward passes with statistics."""
    stream(model, images(count, batch), SpectrumStatistics())


def measure(name: str, count: int, batch: int) -> dict[str, Any]:
    """Returns the times of a batch and the memory for all images."""
    model, statistics = build_form(name), SpectrumStatistics()
    (one,) = images(batch, batch)
    tasks = {
        "forward": partial(forward, model, one),
        "analysed": lambda: stream(model, [one], statistics),
    }
    rows = summarise(interleave(tasks, max(1, count // batch)), "forward")
    peaks = {
        str(n): round((peak_memory(partial(analyse, model, n, batch)) or 0) / 1e6)
        for n in (20, count)
    }
    return {"batch_of_images": rows, "peak_memory_mb_by_images": peaks}


def main() -> None:
    """Measures and writes results/analysis_speed.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = {name: measure(name, arguments.images, arguments.batch) for name in MODELS}
    write("analysis_speed", {"images": arguments.images, "models": table})


if __name__ == "__main__":
    main()
