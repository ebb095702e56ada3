"""Times SPANet and SPANetV2 on a CUDA GPU: bfloat16, channels last, compiled, batch 256, 224².

    python benchmarks/gpu.py                  everything, in under eight minutes on one GPU
    python benchmarks/gpu.py --dry-run        the same steps on the CPU with the smallest models;
                                              compiles only one and writes nothing
    python benchmarks/gpu.py --bytes          only the memory traffic, counted without a GPU

It measures inference and training steps of the default form, of the FFT forms in their best setting
(compiled or not, transforms in float32 within bfloat16, or all in float32), and of peers. It also
measures the peak memory of training, the time of each kernel, and the compiled forms replayed as
CUDA graphs.
"""

import argparse
import json
import sys
import time
from typing import Any, NamedTuple

import torch
from common import write
from forms import released_form
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from turns import Turns, take_turns

from spanets.bench.running import Setting, make_step
from spanets.bench.timed_models import build_form
from spanets.bench.timing import Step, summarise
from spanets.kernels import fused
from spanets_runtime.errors import UsageError


class Models(NamedTuple):
    """The models to measure.

    Attributes:
        spanet, spanetv2: Names of our models.
        peers: Names of timm models to compare with.
    """

    spanet: str
    spanetv2: str
    peers: tuple[str, ...]


MODELS = Models("spanet_small", "spanetv2_s18_pure", ("convnext_tiny", "focalnet_tiny_srf"))
DRY_MODELS = Models("spanet_nano", "spanetv2_nano_pure", ("convnext_atto",))

TARGETS = {
    "inference: FFT form's best setting over ours, at least": 3.0,
    "training: FFT form's best setting over ours, at least": 2.5,
    "training: our peak memory over the FFT form's, at most": 0.6,
    "inference: each peer's time over ours, at least": 1.0,
}


class Plan(NamedTuple):
    """A task to time; calling it builds the task.

    Attributes:
        model: Name of the model in timm.
        form: "default", "fft" (real transforms), "matmul" (SPANetV2's products) or "released"
            (complex transforms, gate by gate).
        setting: Dtype, backend and memory layout.
        batch: Images in a batch.
        size: Image side, in pixels.
    """

    model: str
    form: str
    setting: Setting
    batch: int
    size: int

    def __call__(self) -> tuple[Step, int]:
        """Returns the task and the size of its weights, in bytes."""
        # Without channels last, the network must not switch to that layout itself.
        layout = torch.channels_last if self.setting.channels_last else torch.contiguous_format
        fused.LAYOUT = layout
        if self.form == "released":
            model = released_form(self.model, self.size)
        elif self.form == "matmul":
            model = build_form(self.model, spectral_method="matmul")
        else:
            model = build_form(self.model, self.form)
        return make_step(model, self.setting, self.batch, self.size)


def plans(models: Models, arguments: argparse.Namespace, train: bool) -> dict[str, Plan]:
    """Returns all tasks to time, by name.

    Compiling for a CPU takes minutes a model, so a dry run compiles only the first.
    """
    told = {"device": arguments.device, "train": train}
    half = {**told, "dtype": "bfloat16", "channels_last": True}
    ours = Setting(backend="compile", **half)
    compiled = Setting(backend="eager" if arguments.dry_run else "compile", **half)
    spanet, spanetv2, peers = models
    chosen = {
        spanet: (spanet, "default", ours),
        f"{spanet} eager": (spanet, "default", Setting(**half)),
        f"{spanet} fft compiled": (spanet, "fft", compiled),
        f"{spanet} fft eager": (spanet, "fft", Setting(**half)),
        f"{spanet} released float32 eager": (spanet, "released", Setting(**told)),
        **{peer: (peer, "default", compiled) for peer in peers},
    }
    if not train:
        chosen[spanetv2] = (spanetv2, "default", compiled)
        chosen[f"{spanetv2} products compiled"] = (spanetv2, "matmul", compiled)
    return {
        name: Plan(*what, arguments.batch, arguments.size)
        for name, what in chosen.items()
        if not arguments.only or name in (spanet, *arguments.only)
    }


STEPS = ("inference", "training")


def measure(models: Models, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times all plans of both steps in turn, with their peak memory, and profiles some."""
    chosen = {
        (step, name): plan
        for step in STEPS
        for name, plan in plans(models, arguments, step == "training").items()
    }
    profiled = {(step, name) for step in STEPS for name in (models.spanet, *models.peers)}
    profiled |= {("inference", models.spanetv2)}
    turns = take_turns(
        chosen,
        arguments.rounds,
        arguments.device,
        profiled & set(chosen),
        [key for key, plan in chosen.items() if plan.setting.backend == "compile"],
        arguments.patience,
    )
    return {step: _rows(step, turns, models, arguments.batch) for step in STEPS}


def _rows(step: str, turns: Turns, models: Models, batch: int) -> dict[str, Any]:
    def of_step(table: dict[Any, Any]) -> dict[str, Any]:
        return {name: value for (of, name), value in table.items() if of == step}

    def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
        # If ours failed, still report the others.
        reference = models.spanet if models.spanet in seconds else next(iter(seconds), "")
        rows: dict[str, Any] = summarise(seconds, reference)
        for row in rows.values():
            row["images_per_s"] = round(batch / row["median_s"], 1)
        return rows

    rows = summary(of_step(turns.seconds))
    for name, row in rows.items():
        row["peak_memory_mb"] = turns.peak_memory_mb[step, name]
    return {
        "forms": rows,
        "graphs": summary(of_step(turns.replayed)),
        "failed": of_step(turns.failed),
        "kernels": of_step(turns.kernels),
    }


def verdict(models: Models, inference: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Compares the measurements with the targets."""
    ours = models.spanet
    ratio = f"relative_to_{ours}"

    def best(rows: dict[str, Any]) -> str | None:
        forms = [name for name in rows if "fft" in name or "released" in name]
        own = [name for name in forms if name.startswith(f"{ours} ")]
        return min(own, key=lambda name: rows[name]["median_s"], default=None)

    def speed(rows: dict[str, Any], *names: str | None) -> float | None:
        """Returns the time of the fastest of these relative to ours; None if one is missing."""
        known = [rows.get(name, {}).get(ratio) for name in names]
        return None if None in known else min(known)

    still, moving = inference["forms"], training["forms"]
    memory = [moving.get(name, {}).get("peak_memory_mb") for name in (ours, best(moving))]
    reached = [
        speed(still, best(still)),
        speed(moving, best(moving)),
        round(memory[0] / memory[1], 3) if all(memory) else None,
        speed(still, *models.peers),
    ]
    return {
        name: {"target": target, "reached": value, "fft_form": [best(still), best(moving)]}
        for (name, target), value in zip(TARGETS.items(), reached, strict=True)
    }


class Traffic(TorchDispatchMode):
    """Counts the bytes that each operator reads and writes; views count as nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket is not torch.ops.aten._unsafe_view:
            tensors = [v for v in tree_leaves((args, kwargs, out)) if isinstance(v, Tensor)]
            moved = sum(t.numel() * t.element_size() for t in tensors)
            name = str(func.overloadpacket)
            self.bytes[name] = self.bytes.get(name, 0) + moved
        return out


def count_traffic(size: int = 224) -> dict[str, Any]:
    """Returns megabytes moved for one image, operator by operator, eager bfloat16 inference."""
    forms = {
        "spanet_small": ("spanet_small", "default"),
        "spanet_small fft": ("spanet_small", "fft"),
        "spanetv2_s18_pure": ("spanetv2_s18_pure", "default"),
        "spanetv2_s18_pure fft": ("spanetv2_s18_pure", "fft"),
        **{peer: (peer, "default") for peer in MODELS.peers},
    }
    table = {}
    images = torch.empty(8, 3, size, size, dtype=torch.bfloat16, device="meta")
    for label, (name, form) in forms.items():
        with torch.device("meta"):
            model = build_form(name, form).eval().to(torch.bfloat16)
        with torch.no_grad(), Traffic() as traffic:
            model(images)
        dearest = sorted(traffic.bytes.items(), key=lambda item: -item[1])[:8]
        table[label] = {
            "mb_an_image": round(sum(traffic.bytes.values()) / 8e6, 1),
            "dearest": {operator: round(n / 8e6, 1) for operator, n in dearest},
        }
    return table


def main() -> None:
    """Measures and writes results/gpu.json, or with --bytes results/gpu_traffic.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--patience", type=float, default=240, help="seconds for the preparation")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these forms, and ours; no verdict"
    )
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--bytes", action="store_true")
    arguments = parser.parse_args()
    if arguments.bytes:
        write("gpu_traffic", {"batch": 8, "size": arguments.size, "forms": count_traffic()})
        return
    models = DRY_MODELS if arguments.dry_run else MODELS
    if arguments.dry_run:
        arguments.device, arguments.batch, arguments.size, arguments.rounds = "cpu", 2, 64, 2
        arguments.patience = 3600
    try:
        Setting(device=arguments.device).check()
    except UsageError as error:
        parser.error(str(error))
    start = time.monotonic()
    result = {"batch": arguments.batch, "size": arguments.size, **measure(models, arguments)}
    for step in STEPS:
        if failed := result[step]["failed"]:
            print(f"failed in {step}: {failed}", file=sys.stderr)
    if not arguments.only:
        result["targets"] = verdict(models, result["inference"], result["training"])
    result["seconds"] = round(time.monotonic() - start)
    if arguments.dry_run or arguments.only:
        print(json.dumps(result, indent=2))
    else:
        write("gpu", result, arguments.device)


if __name__ == "__main__":
    main()
