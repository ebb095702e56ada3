"""Counts operations against the image's size, and computes what ImageNet training takes.

    python benchmarks/scale.py [--page]

Writes results/scale.json and, from it and other results, docs/scale.md; --page writes the page
alone. Counts need no clock: networks run on the meta device, where SPANetV2's filters are matrix
products. Hours are computed from the measured parts that the page names, not measured.
"""

import argparse
import json
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import timm
import torch
from common import RESULTS, write
from torch.utils.flop_counter import FlopCounterMode

import spanets

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
MODELS = ("spanet_small", "spanetv2_s18_pure", "spanetv2_s18_hybrid", "convnext_tiny")
SIDES = (224, 448, 896, 1792, 3584)
IMAGES, EPOCHS, BATCH = 1_281_167, 300, 1024
NVLINK, NETWORK = 360e9, 40e9
"""Assumed bytes each GPU sends a second: within a machine of eight, and between machines."""


def count(name: str, side: int) -> float:
    """Returns the multiply-adds of one square image."""
    with torch.device("meta"):
        # Attention adds a fixed table of positions, so hybrids are told their size.
        sized = {"img_size": side} if name.endswith("hybrid") else {}
        model = timm.create_model(name, **sized).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 2


def steps(gpus: int, batch: int, speed: float, gradients: float) -> dict[str, float]:
    """Returns what one update takes, in seconds.

    Args:
        gpus: Number of GPUs, eight in a machine.
        batch: Images of one update, over all GPUs.
        speed: Images that one GPU trains on in a second.
        gradients: Bytes of all gradients.
    """
    traffic = 2 * (gpus - 1) / gpus * gradients  # of a ring
    link = NVLINK if gpus <= 8 else NETWORK
    compute, exchange = batch / gpus / speed, traffic / link
    return {"compute": compute, "exchange": exchange, "best": max(compute, exchange)}


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in lines)


def page() -> str:
    """Returns docs/scale.md."""
    gpu, loading = read("gpu"), read("data_throughput")
    counted, sizes, tables = read("scale"), read("sizes"), read("table_speed")
    memory = read("memory")
    speed = gpu["training"]["forms"]["spanet_small"]["images_per_s"]
    core = loading["recipes"]["imagenet/spanet_small"]["images_per_second_per_core"]["folder"]
    bytes_each = loading["setting"]["mean_bytes"]
    gradients = 4 * counted["parameters"]["spanet_small"]
    rows = []
    for gpus, batch in ((1, BATCH), (8, BATCH), (64, BATCH), (64, 4 * BATCH)):
        taken = steps(gpus, batch, speed, gradients)
        hours = IMAGES * EPOCHS / batch / 3600
        limit = "GPU" if taken["compute"] > taken["exchange"] else "network"
        rows.append(
            (
                f"{gpus} GPU{'s' * (gpus > 1)}, {batch} images an update",
                f"{1e3 * taken['compute']:.1f}",
                f"{1e3 * taken['exchange']:.1f}",
                f"{hours * taken['best']:.1f}",
                f"{hours * (taken['compute'] + taken['exchange']):.1f}",
                f"{batch / taken['best'] / core:.0f}",
                f"{batch / taken['best'] * bytes_each / 1e9:.1f}",
                limit,
            )
        )
    head = ("", "compute, ms", "all-reduce, ms", "hours, overlapped", "hours, one after the other")
    head += ("processor cores that load", "GB/s read", "limit")
    counts = counted["multiply_adds"]
    growth = [
        (
            name,
            *(f"{counts[name][str(side)] / 1e9:.1f}" for side in SIDES),
            f"{log(counts[name][str(SIDES[-1])] / counts[name][str(SIDES[-2])], 4):.2f}",
        )
        for name in MODELS
    ]
    measured = [
        (name, *(f"{row['per_pixel_relative_to_224']:.2f}" for row in list(by.values())[1:]))
        for name, by in sizes["models"].items()
    ]
    million = tables["cases"]["csv"]
    objects = memory["rows"]["load polygons, 1x"]
    return f"""# Scale

Written by `python benchmarks/scale.py`. Counted, measured and computed numbers are apart.

## Operations against the image's size (counted)

Multiply-adds of one image, in billions. The last column is the exponent of the last doubling: 1 is
linear in the pixels.

{table(("", *(f"{side}²" for side in SIDES), "exponent"), growth)}

- SPANet is linear: its filters are products with 5 or 13 rows, at any size.
- SPANetV2's filters are products with as many rows as the map has, when compiled or exported:
  pixels times the side. In eager mode they are Fourier transforms, which are linear but for a
  logarithm; on CPUs and GPUs that is the default.
- The hybrid's attention compares all pixels of the last two stages with all: pixels squared.
- [A test](../tests/contract/test_scaling.py) guards these exponents, and that operations are linear
  in the number of images.

## Time against the image's size (measured)

Time for a pixel relative to 224², eager, {sizes["circumstances"]["processor"]},
{sizes["circumstances"]["date"]}:

{table(("", *(f"{side}²" for side in list(sizes["models"]["spanet_small"])[1:])), measured)}

## Images and objects (measured)

- A table of {tables["rows"]:,} images is read and split in {million["seconds"]:.0f} s with
  {million["added_bytes"] / 1e6:.0f} MB ({tables["circumstances"]["date"]}).
- A photograph of 12 megapixels with {memory["photograph"]["objects"]:,} outlined objects is loaded
  for training in {objects["peak_bytes"] / 1e9:.2f} GB, of which the imports take
  {objects["imports_bytes"] / 1e9:.2f} ({memory["circumstances"]["date"]}).

## ImageNet on 1, 8 and 64 GPUs (computed, not measured)

{IMAGES:,} images, {EPOCHS} epochs. Nobody has run this.

```sh
spanets train imagenet/spanet_small --data.root IMAGENET --trainer.devices 8
```

{table(head, rows)}

Measured parts:

- one {gpu["circumstances"]["gpu"]} trains on {speed:,.0f} images a second: batches of
  {gpu["batch"]}, bfloat16, compiled, {gpu["circumstances"]["date"]}, before its present kernels;
- one core of an {loading["circumstances"]["processor"]} decodes and augments {core:.0f} images a
  second: JPEG files of {bytes_each / 1e3:.0f} kB on average, {loading["circumstances"]["date"]};
- {gradients / 4e6:.1f} M parameters: gradients of {gradients / 1e6:.0f} MB in float32.

Assumed:

- a GPU is as fast with smaller batches. It is not with 16 images each, so the third row is the
  least certain;
- a ring all-reduce at {NVLINK / 1e9:.0f} GB/s for each GPU within a machine of eight, and
  {NETWORK / 1e9:.0f} GB/s between machines. DistributedDataParallel overlaps it with the backward
  pass: the truth lies between the two columns of hours;
- loading never waits for a disk. "GB/s read" is what the disks or the network must deliver;
- validation, checkpoints and start-up are left out.

What limits: on one GPU, the processor: {speed / core:.0f} cores must load images for it, and a
machine with fewer is as slow as its cores. On eight, the same for each. On 64 with the paper's
batch, the all-reduce takes longer than the computation: larger batches, which change the training,
are the remedy.
"""


def main() -> None:
    """Counts, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write the page alone")
    if not parser.parse_args().page:
        assert spanets.list_models()  # registers them with timm
        counts = {name: {str(side): count(name, side) for side in SIDES} for name in MODELS}
        parameters = {
            name: sum(p.numel() for p in timm.create_model(name).parameters()) for name in MODELS
        }
        write("scale", {"multiply_adds": counts, "parameters": parameters})
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
