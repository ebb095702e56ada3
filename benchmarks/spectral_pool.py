"""Times spectral pooling by FFT and by basis functions, for several radii.

    python benchmarks/spectral_pool.py [--threads 2]

The result is the reason for `MAX_BASIS` in `spanets.spectral`.
"""

import argparse
from functools import partial

import torch
from common import write

from spanets.bench.timing import interleave, summarise
from spanets.spectral import basis_size, spectral_pool


def main() -> None:
    """Measures and writes results/spectral_pool.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for size, channels in ((56, 64), (28, 128), (14, 320)):
        x = torch.randn(16, channels, size, size)
        radii = [radius for radius in (1, 2, 3, 4, 5, 6, 8, 10) if 2 * radius < size]
        tasks = {f"radius {r}": partial(spectral_pool, x, r, 0.7, method="basis") for r in radii}
        tasks["fft"] = partial(spectral_pool, x, 2, 0.7, method="fft")
        with torch.inference_mode():
            rows = summarise(interleave(tasks, arguments.rounds), "fft")
        for radius in radii:
            rows[f"radius {radius}"]["basis_size"] = basis_size(radius)
        results[f"{channels}x{size}x{size}"] = rows
    write("spectral_pool", {"batch": 16, "maps": results})


if __name__ == "__main__":
    main()
