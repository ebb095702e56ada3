"""What a pixel costs from 224² to 1024²: SPANet, SPANetV2 and ConvNeXt, one image, CPU.

python benchmarks/sizes.py [--threads 2] [--rounds 9] [--backend eager]
"""

import argparse
from typing import Any

import torch
from common import write

from spanets.benchmark.compare import Setting, compare

MODELS = ("spanet_small", "spanetv2_s18_pure", "convnext_tiny")
SIZES = (224, 384, 512, 768, 1024)


def main() -> None:
    """Measures and writes results/sizes.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backend", default="eager")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = compare(
        MODELS, Setting(backend=arguments.backend), sizes=SIZES, rounds=arguments.rounds
    )
    table: dict[str, Any] = {}
    for row in result["rows"]:
        nanoseconds = row["latency_ms"] * 1e6 / row["size"] ** 2
        table.setdefault(row["model"], {})[row["size"]] = {
            "latency_ms": row["latency_ms"],
            "ns_per_pixel": round(nanoseconds, 1),
            "peak_memory_mb": row["peak_memory_mb"],
        }
    for sizes in table.values():
        first = sizes[SIZES[0]]["ns_per_pixel"]
        for entry in sizes.values():
            entry["relative_to_224"] = round(entry["ns_per_pixel"] / first, 3)
    write("sizes", {"backend": arguments.backend, "batch": 1, "models": table})


if __name__ == "__main__":
    main()
