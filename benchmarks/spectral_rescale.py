"""Times spectral re-scaling by FFT and by matrix products at the stages' sizes, eager, CPU.

    python benchmarks/spectral_rescale.py [--threads 2] [--rounds 15]

The result is the reason for `resolve_rescale_method` in `spanets.spectral`.
"""

import argparse
from functools import partial

import torch
from common import write

from spanets.bench.timing import interleave, summarise
from spanets.spectral import spectral_rescale


def main() -> None:
    """Measures and writes results/spectral_rescale.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for size, channels in ((128, 64), (56, 64), (28, 128), (14, 320), (7, 512)):
        for batch in (1, 8):
            x = torch.randn(batch, channels, size, size)
            gain = torch.rand(channels, size, size // 2 + 1)
            tasks = {
                method: partial(spectral_rescale, x, gain, method) for method in ("fft", "matmul")
            }
            with torch.inference_mode():
                rows = summarise(interleave(tasks, arguments.rounds, warmup=3), "fft")
            results[f"{batch}x{channels}x{size}x{size}"] = rows
    write("spectral_rescale", {"maps": results})


if __name__ == "__main__":
    main()
