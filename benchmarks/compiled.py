"""Times compiled SPANet-small, its FFT forms and ConvNeXt, float32 and bfloat16, on the CPU.

    python benchmarks/compiled.py [--threads 2] [--batch 8] [--rounds 9]

The FFT forms run in eager float32, where they are fastest: bfloat16 has no FFT. A processor without
bfloat16 instructions (AVX-512 BF16, AMX) emulates it; the result says whether it has them.
"""

import argparse
from pathlib import Path

import torch
from common import write
from forms import released_form

from spanets.bench.running import Setting, make_step
from spanets.bench.timed_models import build_form
from spanets.bench.timing import interleave, summarise

BF16 = {"avx512_bf16", "amx_bf16"}


def main() -> None:
    """Measures and writes results/compiled.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    eager, wide = Setting(), Setting(backend="compile")
    half = Setting(backend="compile", dtype="bfloat16")
    plans = {
        "spanet_small bfloat16 compiled": (build_form("spanet_small"), half),
        "spanet_small float32 compiled": (build_form("spanet_small"), wide),
        "spanet_small float32 eager": (build_form("spanet_small"), eager),
        "fft float32 eager": (build_form("spanet_small", "fft"), eager),
        "released float32 eager": (released_form("spanet_small"), eager),
        "convnext_tiny bfloat16 compiled": (build_form("convnext_tiny"), half),
        "convnext_tiny float32 compiled": (build_form("convnext_tiny"), wide),
    }
    tasks = {
        name: make_step(model, setting, arguments.batch, 224)[0]
        for name, (model, setting) in plans.items()
    }
    rows = summarise(
        interleave(tasks, arguments.rounds, warmup=2), "spanet_small bfloat16 compiled"
    )
    flags = set(Path("/proc/cpuinfo").read_text().split())
    told = {"bfloat16_instructions": sorted(BF16 & flags), "batch": arguments.batch, "size": 224}
    write("compiled", {**told, "forms": rows})


if __name__ == "__main__":
    main()
