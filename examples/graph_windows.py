"""Computes the table of docs/analysis.md: convolution and attention on a grid, by window.

    python examples/graph_windows.py [--samples 100] [--out docs/figures/graph_windows]

Random operators on 14 × 14 tokens: attention with Gaussian queries and keys (d = 32) inside the
window, convolutions with zero-mean, shifted (mean σ/4) and uniform (0 to 1) weights, measured on
the modes of the grid of neighbours; the uniform support on the window's own.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spanets.analysis.graph import (
    Array,
    attention_matrix,
    combinatorial_modes,
    convolution_matrix,
    graph_spectrum,
    grid_adjacency,
    normalized_modes,
    uniform_matrix,
    window_adjacency,
)
from spanets.analysis.plots import plot_windows, save_figure

SIDE = 14
WINDOWS = (3, 5, 7, 9, 13)

KERNELS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "convolution, zero mean": lambda rng, k: rng.normal(size=(k, k)),
    "convolution, mean σ/4": lambda rng, k: 0.25 + rng.normal(size=(k, k)),
    "convolution, U(0, 1)": lambda rng, k: rng.uniform(size=(k, k)),
}


def attention(rng: np.random.Generator, window: Array) -> Array:
    """Returns attention with Gaussian queries and keys inside a window."""
    query, key = rng.normal(size=(2, SIDE * SIDE, 32))
    return attention_matrix(query, key, window)


def measure(size: int, samples: int, rng: np.random.Generator) -> dict[str, float]:
    """Returns a column of the table."""
    window = window_adjacency(SIDE, SIDE, size)
    own, grid = normalized_modes(window), combinatorial_modes(grid_adjacency(SIDE, SIDE))
    uniform = graph_spectrum(uniform_matrix(window), own).profile
    column = {"uniform support: mean |φ| off the origin": float(np.abs(uniform[1:]).mean())}
    operators = [attention(rng, window) for _ in range(samples)]
    high = [graph_spectrum(operator, grid).high_pass_ratio > 1 for operator in operators]
    column["attention: share with high-pass ratio > 1"] = float(np.mean(high))
    spectra = [graph_spectrum(operator, grid) for operator in operators]
    column["attention: mean |φ|, top third"] = float(np.mean([s.thirds()[2] for s in spectra]))
    column["attention: γ ratio"] = float(np.mean([s.gain_ratio for s in spectra]))
    for name, draw in KERNELS.items():
        operators = [convolution_matrix(draw(rng, size), SIDE, SIDE) for _ in range(samples)]
        high = [graph_spectrum(operator, grid).high_pass_ratio > 1 for operator in operators]
        ratios = [graph_spectrum(operator, grid) for operator in operators]
        column[f"{name}: share with high-pass ratio > 1"] = float(np.mean(high))
        # Root mean squares: one kernel with a mean near 0 would dominate a mean of ratios.
        top = np.mean([np.mean(s.gain[-(SIDE * SIDE // 3) :] ** 2) for s in ratios])
        column[f"{name}: γ ratio"] = float(np.sqrt(top / np.mean([s.gain[0] ** 2 for s in ratios])))
    return column


def main() -> None:
    """Prints the table and draws the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--out", type=Path, help="path of the figure, without a suffix")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    columns = [measure(size, arguments.samples, rng) for size in WINDOWS]
    width = max(map(len, columns[0]))
    print("window".ljust(width), *(f"{size:>6}" for size in WINDOWS))
    for name in columns[0]:
        print(name.ljust(width), *(f"{column[name]:6.3f}" for column in columns))
    if arguments.out is not None:
        names = [name for name in columns[0] if name.endswith("γ ratio")]
        ratios = {name.split(": ")[0]: [column[name] for column in columns] for name in names}
        save_figure(plot_windows(WINDOWS, ratios), arguments.out)


if __name__ == "__main__":
    main()
