"""Times exporting and compiling, and counts the nodes of ONNX graphs, on the CPU.

    python benchmarks/export_speed.py [--rounds 3] [--compile]

Each network is compared with a ConvNeXt of as many blocks. Times are processor seconds: exporting
is one thread of Python. `--compile` also times `torch.compile(fullgraph=True, dynamic=True)` with
an empty cache, until batches of two sizes have run.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import onnx
import timm
import torch
from common import write
from torch import nn
from torch._inductor.utils import fresh_cache

from spanets.bench.timed_models import build_form
from spanets.deploy.tracing import Traceable, inference_form, to_onnx
from spanets_runtime.progress import progress

# Our networks, each with a ConvNeXt of as many blocks in each stage.
CONTROLS = {
    "spanet_nano": ("convnext_atto", (2, 2, 4, 2)),
    "spanetv2_nano_pure": ("convnext_atto", (2, 2, 4, 2)),
    "spanet_small": ("convnext_tiny", (4, 4, 12, 4)),
    "spanetv2_s18_pure": ("convnext_tiny", (3, 3, 9, 3)),
}


def export(model: nn.Module, dynamic: bool) -> int:
    """Converts to ONNX; returns the number of nodes, those of functions in the graph included."""
    images = torch.randn(2 if dynamic else 1, 3, 224, 224)
    given = Traceable(model, images, {"logits": [len(images), 1000]}, dynamic)
    graph = onnx.load_from_string(to_onnx(given))
    return len(graph.graph.node) + sum(len(function.node) for function in graph.functions)


def compile_dynamic(model: nn.Module) -> None:
    """Compiles for any size, and runs two."""
    torch.compiler.reset()
    with fresh_cache(), torch.no_grad():
        network = torch.compile(model, fullgraph=True, dynamic=True)
        for size in (224, 256):
            network(torch.randn(2, 3, size, size))


def seconds(step: Callable[[], object]) -> tuple[float, Any]:
    """Returns the processor time of a step, that of its compilers included, and its result."""
    start = sum(os.times()[:4])
    result = step()
    return sum(os.times()[:4]) - start, result


def measure(models: dict[str, nn.Module], rounds: int, compiles: bool) -> dict[str, Any]:
    """Returns nodes, median seconds and their ratio for a network and its control, in turn."""
    steps: dict[str, Callable[[nn.Module], object]] = {
        "fixed": partial(export, dynamic=False),
        "free": partial(export, dynamic=True),
    }
    if compiles:
        steps["compile"] = compile_dynamic
    found: dict[str, dict[str, list[float]]] = {what: {} for what in steps}
    rows: dict[str, Any] = {what: {} for what in steps}
    for _ in range(rounds):
        for what, step in steps.items():
            for who, model in models.items():
                network = inference_form(model.eval(), torch.float32)
                time, nodes = seconds(partial(step, network))
                found[what].setdefault(who, []).append(time)
                if nodes is not None:
                    rows[what][f"{who}_nodes"] = nodes
    for what, times in found.items():
        own, control = times.values()
        rows[what] |= {f"{who}_s": round(statistics.median(t), 2) for who, t in times.items()}
        ratios = [a / b for a, b in zip(own, control, strict=True)]
        rows[what]["ratio"] = round(statistics.median(ratios), 2)
    return rows


def main() -> None:
    """Measures and writes results/export_speed.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=CONTROLS, default=list(CONTROLS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch._inductor.config.compile_threads = 1  # its compilers' time counts only in this process
    rows: dict[str, Any] = {}
    for name in progress(arguments.models, "models"):
        control, depths = CONTROLS[name]
        models = {"ours": build_form(name), "control": timm.create_model(control, depths=depths)}
        found = measure(models, arguments.rounds, arguments.compile)
        rows[name] = {"control": f"{control}, depths {depths}"} | found
    write("export_speed", {"onnx": onnx.__version__, "size": 224, "models": rows})


if __name__ == "__main__":
    main()
