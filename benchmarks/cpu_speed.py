"""Times SPANet and SPANetV2, their FFT forms and peers: eager float32, 224², CPU.

    python benchmarks/cpu_speed.py [spanet | spanetv2] [--threads 2] [--batch 16] [--rounds 15]

Forms of SPANet-small, which agree up to float rounding:
  closed form     the default: thin matrix products
  rfft            `spectral_method="fft"`: two real FFTs over all channels
  released fft    like the released code: for each gate a complex FFT, shift, mask, inverse and
                  convolution, on contiguous (NCHW) maps

Forms of SPANetV2-s18:
  ours            the default: one FFT for all heads, fused attention
  head by head    an FFT for each head, everything else as ours
  released        head by head on contiguous (NCHW) maps, with explicit attention

Each peer is timed in the faster of two memory layouts, contiguous and channels last.
"""

import argparse
from collections.abc import Callable

import timm
import torch
from common import write
from forms import head_by_head, released_form
from torch import Tensor, nn

from spanets.bench.timing import interleave, summarise
from spanets.kernels import fused


def inference(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Returns a forward pass to time."""
    model.eval()

    def run() -> None:
        with torch.inference_mode():
            model(x)

    return run


def training(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Returns a training step to time: forward, backward, SGD."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return run


def contiguous(task: Callable[[], object]) -> Callable[[], object]:
    """Runs a task without the rule that makes the stem use channels last on a CPU."""

    def run() -> None:
        layout = fused.LAYOUT
        fused.LAYOUT = torch.contiguous_format
        try:
            task()
        finally:
            fused.LAYOUT = layout

    return run


def spanet(x: Tensor, rounds: int) -> dict[str, object]:
    """Times SPANet-small and its peers."""
    last = x.contiguous(memory_format=torch.channels_last)
    results = {}
    for mode, timed in (("inference", inference), ("training", training)):
        tasks = {
            "closed_form": timed(timm.create_model("spanet_small"), x),
            "rfft": timed(timm.create_model("spanet_small", spectral_method="fft"), x),
            "released_fft": contiguous(timed(released_form("spanet_small"), x)),
        }
        for peer in ("focalnet_tiny_srf", "convnext_tiny"):
            tasks[peer] = timed(timm.create_model(peer), x)
            model = timm.create_model(peer).to(memory_format=torch.channels_last)
            tasks[f"{peer} channels_last"] = timed(model, last)
        count = rounds if mode == "inference" else max(3, rounds // 3)
        results[mode] = summarise(interleave(tasks, count), "closed_form")
    return results


def spanetv2(x: Tensor, rounds: int) -> dict[str, object]:
    """Times SPANetV2-s18, pure and hybrid."""
    results = {}
    for name in ("spanetv2_s18_pure", "spanetv2_s18_hybrid"):
        for mode, timed in (("inference", inference), ("training", training)):
            tasks = {
                "ours": timed(timm.create_model(name), x),
                "matmul": timed(timm.create_model(name, spectral_method="matmul"), x),
                "head_by_head": timed(head_by_head(name), x),
                "released": contiguous(timed(head_by_head(name, written_out=True), x)),
            }
            count = rounds if mode == "inference" else max(3, rounds // 3)
            results[f"{name} {mode}"] = summarise(interleave(tasks, count), "ours")
    return results


def main() -> None:
    """Measures and writes results/cpu_speed.json or cpu_speed_v2.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("family", choices=["spanet", "spanetv2"], default="spanet", nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="default: 16, for spanetv2 8")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    second = arguments.family == "spanetv2"
    batch = arguments.batch or (8 if second else 16)
    x = torch.randn(batch, 3, 224, 224)
    results = (spanetv2 if second else spanet)(x, arguments.rounds)
    write("cpu_speed_v2" if second else "cpu_speed", {"batch": batch, "size": 224, **results})


if __name__ == "__main__":
    main()
