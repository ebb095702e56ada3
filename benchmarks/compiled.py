"""Times compiled SPANet, its FFT forms, SPANetV2 and ConvNeXt, float32 and bfloat16, on the CPU.

    python benchmarks/compiled.py [--threads 2] [--batch 1 8 16] [--rounds 9]

The FFT forms run in eager float32, where they are fastest: bfloat16 has no FFT. A processor without
bfloat16 instructions (AVX-512 BF16, AMX) emulates it; its results are in compiled_emulated.json.
"""

import argparse
from pathlib import Path

import torch
from common import write
from forms import released_form

from spanets.bench.running import Setting, make_step
from spanets.bench.timed_models import build_form
from spanets.bench.timing import interleave, summarise
from spanets_runtime.progress import progress

BF16 = {"avx512_bf16", "amx_bf16"}


def measure(batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Times all forms on batches of one size, in turn."""
    torch.manual_seed(0)
    eager, wide = Setting(), Setting(backend="compile")
    half = Setting(backend="compile", dtype="bfloat16")
    plans = {
        "spanet_small bfloat16 compiled": (build_form("spanet_small"), half),
        "spanet_small float32 compiled": (build_form("spanet_small"), wide),
        "spanet_small float32 eager": (build_form("spanet_small"), eager),
        "fft float32 eager": (build_form("spanet_small", "fft"), eager),
        "released float32 eager": (released_form("spanet_small"), eager),
    }
    for name in ("spanetv2_s18_pure", "convnext_tiny"):
        plans[f"{name} bfloat16 compiled"] = (build_form(name), half)
        plans[f"{name} float32 compiled"] = (build_form(name), wide)
        plans[f"{name} float32 eager"] = (build_form(name), eager)
    tasks = {
        name: make_step(model, setting, batch, 224)[0]
        for name, (model, setting) in progress(plans.items(), f"compiling, batch {batch}")
    }
    return summarise(interleave(tasks, rounds, warmup=2), "spanet_small bfloat16 compiled")


def main() -> None:
    """Measures, and writes results/compiled.json or compiled_emulated.json after each batch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    instructions = sorted(BF16 & set(Path("/proc/cpuinfo").read_text().split()))
    name = "compiled" if instructions else "compiled_emulated"
    found: dict[str, dict[str, dict[str, float]]] = {}
    for batch in arguments.batch:
        found[str(batch)] = measure(batch, arguments.rounds)
        write(name, {"bfloat16_instructions": instructions, "size": 224, "batches": found})


if __name__ == "__main__":
    main()
