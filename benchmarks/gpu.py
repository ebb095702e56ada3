"""SPANet and SPANetV2 on a CUDA GPU: bfloat16, channels last, compiled, batch 256, 224².

    python benchmarks/gpu.py                  everything, in under eight minutes on one GPU
    python benchmarks/gpu.py --dry-run        the same steps on the CPU with the smallest models, of
                                              which one alone is compiled; writes nothing
    python benchmarks/gpu.py --bytes          only the memory traffic, counted without a GPU

Measured: inference and training steps of the default form, of the FFT forms at their best setting
(compiled or not, transforms in float32 within bfloat16, or all in float32), and of peers; the peak
memory of training; and where the time of our training step goes, kernel by kernel.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from common import write
from forms import released_form
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from spanets.benchmark.compare import Setting, build_form, make_task
from spanets.benchmark.memory import peak_memory
from spanets.benchmark.timing import interleave, summarise
from spanets_runtime.errors import first_line


class Models(NamedTuple):
    """What is measured.

    Attributes:
        spanet, spanetv2: Ours.
        peers: Models of timm's to stand beside them.
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


def plans(
    models: Models, arguments: argparse.Namespace
) -> Iterator[tuple[str, nn.Module, Setting]]:
    """Yields name, model and setting of everything that is timed.

    Compiling for a CPU takes minutes a model, so a dry run compiles the first alone.
    """
    device = arguments.device
    half = {"dtype": "bfloat16", "device": device, "channels_last": True}
    spanet, spanetv2, peers = models
    yield spanet, build_form(spanet), Setting(backend="compile", **half)
    compiled = Setting(backend="eager" if arguments.dry_run else "compile", **half)
    yield f"{spanet} fft compiled", build_form(spanet, "fft"), compiled
    yield f"{spanet} fft eager", build_form(spanet, "fft"), Setting(**half)
    released = released_form(spanet, arguments.size)
    yield f"{spanet} released float32 eager", released, Setting(device=device)
    for peer in peers:
        yield peer, build_form(peer), compiled
    yield spanetv2, build_form(spanetv2), compiled
    yield f"{spanetv2} fft compiled", build_form(spanetv2, "fft"), compiled


def measure(models: Models, arguments: argparse.Namespace, train: bool) -> dict[str, Any]:
    """Times all plans, interleaved, and their peak memory."""
    tasks, memory, failed = {}, {}, {}
    step = "training" if train else "inference"
    for name, model, setting in tqdm(list(plans(models, arguments)), step, disable=None):
        setting = Setting(**{**vars(setting), "train": train})
        try:
            task, weights = make_task(model, setting, arguments.batch, arguments.size)
            task()
            task()
            peak = peak_memory(task, arguments.device)
        # A form that does not compile or fit is a result, and no reason to lose the others; a dry
        # run is there to find what fails.
        except Exception as error:
            if arguments.dry_run:
                raise
            failed[name] = first_line(error)
            torch._dynamo.reset()
            continue
        tasks[name] = task
        memory[name] = None if peak is None else round((peak + weights) / 1e6)
    rows: dict[str, Any] = summarise(
        interleave(tasks, arguments.rounds, warmup=3, device=arguments.device), models.spanet
    )
    for name, row in rows.items():
        row["images_per_s"] = round(arguments.batch / row["median_s"], 1)
        row["peak_memory_mb"] = memory[name]
    torch._dynamo.reset()
    return {"forms": rows, "failed": failed}


def verdict(models: Models, inference: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Holds the measurements against the targets."""
    ours = models.spanet

    def best(rows: dict[str, Any]) -> str:
        forms = [name for name in rows if name.startswith(f"{ours} ")]
        return min(forms, key=lambda name: rows[name]["median_s"])

    still, moving = inference["forms"], training["forms"]
    ratio = f"relative_to_{ours}"
    memory = moving[ours]["peak_memory_mb"]
    reached = [
        still[best(still)][ratio],
        moving[best(moving)][ratio],
        memory and round(memory / moving[best(moving)]["peak_memory_mb"], 3),
        min(still[peer][ratio] for peer in models.peers if peer in still),
    ]
    return {
        name: {"target": target, "reached": value, "fft_form": [best(still), best(moving)]}
        for (name, target), value in zip(TARGETS.items(), reached, strict=True)
    }


def kernels(model: str, arguments: argparse.Namespace, count: int = 20) -> list[dict[str, Any]]:
    """Returns the dearest kernels of a training step of a model."""
    setting = Setting("bfloat16", "compile", True, arguments.device, True)
    task, _ = make_task(build_form(model), setting, arguments.batch, arguments.size)
    task()
    task()
    gpu = arguments.device != "cpu"
    kind = torch.profiler.ProfilerActivity.CUDA if gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profile:
        task()
        if gpu:
            torch.cuda.synchronize()
    field = "self_device_time_total" if gpu else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda e: -getattr(e, field))
    total = sum(getattr(e, field) for e in events)
    return [
        {
            "kernel": event.key[:100],
            "share": round(getattr(event, field) / total, 4),
            "calls": event.count,
        }
        for event in events[:count]
    ]


class Traffic(TorchDispatchMode):
    """Adds up the bytes that each operator reads and writes; views move nothing."""

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
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--bytes", action="store_true")
    arguments = parser.parse_args()
    if arguments.bytes:
        write("gpu_traffic", {"batch": 8, "size": arguments.size, "forms": count_traffic()})
        return
    models = DRY_MODELS if arguments.dry_run else MODELS
    if arguments.dry_run:
        arguments.device, arguments.batch, arguments.size, arguments.rounds = "cpu", 2, 64, 2
    Setting(device=arguments.device).check()
    start = time.monotonic()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    inference = measure(models, arguments, train=False)
    training = measure(models, arguments, train=True)
    result = {
        "batch": arguments.batch,
        "size": arguments.size,
        "targets": verdict(models, inference, training),
        "inference": inference,
        "training": training,
        "kernels_of_a_training_step": kernels(models.spanet, arguments),
        "seconds": round(time.monotonic() - start),
    }
    if arguments.dry_run:
        print(json.dumps(result, indent=2))
    else:
        write("gpu", result, arguments.device)


if __name__ == "__main__":
    main()
