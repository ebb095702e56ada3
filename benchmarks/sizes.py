"""Measures the time of a pixel from 224² to 1024²: SPANet, SPANetV2 and ConvNeXt, eager, CPU.

    python benchmarks/sizes.py [--threads 2] [--rounds 5] [--one-image]

A batch has about 1024² pixels, so that the fixed cost of a call does not matter. --one-image times
single images; a small one also shows that fixed cost. All sizes take turns in every round.
"""

import argparse
from typing import Any

import torch
from common import write

from spanets.bench.running import Setting, make_step
from spanets.bench.timed_models import build_form
from spanets.bench.timing import interleave, summarise

MODELS = ("spanet_small", "spanetv2_s18_pure", "convnext_tiny")
SIZES = (224, 384, 512, 768, 1024)


def main() -> None:
    """Measures and writes results/sizes.json, or sizes_one_image.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-image", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table: dict[str, Any] = {}
    for name in MODELS:
        model, tasks, pixels = build_form(name), {}, {}
        for size in SIZES:
            batch = 1 if arguments.one_image else round((SIZES[-1] / size) ** 2)
            tasks[str(size)], _ = make_step(model, Setting(), batch, size)
            pixels[str(size)] = batch * size**2
        rows = summarise(interleave(tasks, arguments.rounds), str(SIZES[0]))
        for size, row in rows.items():
            relative = row.pop(f"relative_to_{SIZES[0]}") * pixels[str(SIZES[0])] / pixels[size]
            row["ns_per_pixel"] = round(row["median_s"] / pixels[size] * 1e9, 1)
            row["per_pixel_relative_to_224"] = round(relative, 3)
        table[name] = rows
    write("sizes_one_image" if arguments.one_image else "sizes", {"models": table})


if __name__ == "__main__":
    main()
