"""Times networks in the runtimes that they are deployed on, on the CPU, at 224².

    python benchmarks/runtimes.py --runtimes eager compiled aoti onnx openvino [--batch 8]
    python benchmarks/runtimes.py --runtimes eager onnx executorch

A processor without bfloat16 instructions emulates them slowly; leave them out by `--dtypes`.
Packages of some runtimes pin versions of torch, so one environment cannot hold all. Every run also
times eager float32, and its rows are relative to it. Rows of other runs in
results/runtimes.json are kept, so models can be timed one after the other.
"""

import argparse
import json
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, write
from timm.utils import reparameterize_model
from torch import Tensor, nn

from spanets.bench.paper_accuracy import IMAGENET_TOP1
from spanets.bench.running import DTYPES
from spanets.bench.timed_models import build_form
from spanets.bench.timing import SESSIONS_SETTLE, Step, circumstances, interleave, summarise
from spanets.deploy.export import export_model
from spanets_runtime.onnx import open_engine, open_session
from spanets_runtime.progress import progress

# Top-1 accuracy on ImageNet-1K in percent, as published: of our models and of SPANet's peers in its
# Table 2; of EfficientNet in its own paper.
PUBLISHED = IMAGENET_TOP1 | {
    "convnext_tiny": 82.1,
    "focalnet_tiny_lrf": 82.3,
    "efficientnet_b0": 77.1,
}

PEERS = ("convnext_tiny", "focalnet_tiny_lrf", "efficientnet_b0")

# The number formats of each runtime.
RUNTIMES = {
    "eager": ("float32", "bfloat16"),
    "compiled": ("float32", "bfloat16"),
    "aoti": ("float32", "bfloat16"),  # compiled ahead of time
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "executorch": ("float32",),
}

IN_TORCH = ("eager", "compiled", "aoti")
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "executorch": "executorch"}
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "executorch": ".pte"}

REFERENCE = "eager float32"


def in_torch(runtime: str, dtype: str, model: nn.Module, x: Tensor, folder: Path) -> Step:
    """Returns a step in torch: eager, or compiled in this process or ahead of time."""
    network: Any = reparameterize_model(model.eval()).to(DTYPES[dtype])
    x = x.to(DTYPES[dtype])
    with torch.inference_mode(False), torch.no_grad():
        if runtime == "compiled":
            network = torch.compile(network, dynamic=False)
        elif runtime == "aoti":
            program = torch.export.export(network, (x,), strict=False)
            path = str(folder / f"{dtype}.pt2")
            torch._inductor.aoti_compile_and_package(program, package_path=path)
            network = torch._inductor.aoti_load_package(path)

    def run() -> None:
        with torch.inference_mode():
            network(x)

    run()  # compiles now
    return run


def exported(runtime: str, dtype: str, model: nn.Module, x: Tensor, folder: Path) -> Step:
    """Returns a step in a runtime that reads exported files."""
    # OpenVINO reads the int8 file of ONNX, and rounds weights to bfloat16 when it opens a file.
    suffix = ".onnx" if dtype == "int8" else SUFFIXES[runtime]
    path = folder / f"{runtime}_{dtype}{suffix}"
    threads, images = torch.get_num_threads(), x.numpy()
    calibration = list(np.random.default_rng(0).standard_normal((4, *x.shape[1:]), np.float32))
    export_model(
        model,
        path,
        x.shape[-1],
        "float32" if dtype == "bfloat16" else dtype,
        dynamic=False,
        batch=len(x),
        calibration=calibration if dtype == "int8" else None,
    )
    if runtime == "openvino" and dtype != "float32":
        import openvino

        hint = "bf16" if dtype == "bfloat16" else "f32"
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
        return partial(openvino.Core().compile_model(path, "CPU", options), images)
    if runtime == "onnx":
        return partial(open_session(path, threads).run, None, {"images": images})
    return partial(open_engine(path, threads), images)


def package(runtime: str) -> str:
    """Returns the package of a runtime with its version."""
    name = PACKAGES.get(runtime, "torch")
    return f"{name} {version(name)}"


def add(
    rows: list[dict[str, Any]], name: str, batch: int, found: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """Returns rows in which those of a model, batch and runtime are replaced."""
    told = {"model": name, "top1_published": PUBLISHED.get(name), "batch": batch}
    machine = circumstances()
    new = [
        told | {"runtime": kind, "package": package(kind.split()[0])} | row | machine
        for kind, row in found.items()
    ]
    keys = {(name, batch, kind) for kind in found}
    kept = [r for r in rows if (r["model"], r["batch"], r["runtime"]) not in keys]
    return sorted(kept + new, key=lambda r: (r["model"], r["batch"]))


def main() -> None:
    """Measures, and adds to results/runtimes.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--models", nargs="+", default=("spanet_small", "spanetv2_s18_pure", *PEERS)
    )
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=["eager", "onnx"])
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=("float32", "bfloat16", "int8"),
        default=["bfloat16", "int8"],
        help="number formats, besides float32",
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="ExecuTorch takes all cores")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x = torch.randn(arguments.batch, 3, 224, 224)
    path = RESULTS / "runtimes.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        for name in progress(arguments.models, "models"):
            steps: dict[str, Step] = {}
            for runtime in dict.fromkeys(["eager", *arguments.runtimes]):
                make = in_torch if runtime in IN_TORCH else exported
                for dtype in (d for d in RUNTIMES[runtime] if d in ("float32", *arguments.dtypes)):
                    kind = f"{runtime} {dtype}"
                    steps[kind] = make(runtime, dtype, build_form(name), x, Path(folder))
            seconds = interleave(steps, arguments.rounds, warmup=2, settle=SESSIONS_SETTLE)
            found = summarise(seconds, REFERENCE)
            rows = add(rows, name, arguments.batch, found)
            write("runtimes", {"size": 224, "rows": rows})


if __name__ == "__main__":
    main()
