"""Draws the pictures of docs/idea.md.

    python examples/idea_figures.py [FOLDER]

The photograph is Grace Hopper's, by the U.S. Navy, in the public domain; matplotlib brings it.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image
from readme_figure import draw_mixer
from torch import Tensor

from spanets.analysis import spectrum_map
from spanets.spectral import low_frequency_basis, low_frequency_mask, spectral_pool

SIDE, MAP = 256, 56  # sides of the photograph, and of the first stage's maps for 224² images
COLOURS = 96  # of the files: keeps the spectrum small


def load_photograph(side: int) -> Tensor:
    """Returns a square of the photograph as a grey image (1, side, side), from 0 to 1."""
    with get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("L").crop((110, 20, 410, 320))
    pixels = torch.tensor(list(image.resize((side, side)).tobytes()), dtype=torch.float32)
    return pixels.reshape(1, side, side) / 255


def show(axes: Any, picture: Tensor, title: str, limits: tuple[float, float] | None = None) -> None:
    """Draws a picture without ticks; without limits, black and white are its extremes."""
    low, high = limits or (None, None)
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high)
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def draw_spectrum() -> Figure:
    """Draws a photograph, its spectrum, its low frequencies and its high ones."""
    image = load_photograph(SIDE)
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes = figure.subplots(1, 4)
    show(axes[0], image[0], "a photograph", (0, 1))
    spectrum = spectrum_map(image[None] - image.mean())
    middle = SIDE // 2
    axes[1].imshow(spectrum, cmap="magma", vmin=0, extent=(-middle, middle, -middle, middle))
    axes[1].set_title("its spectrum (log amplitude)", fontsize=10)
    axes[1].set_xticks([-middle, 0, middle])
    axes[1].set_yticks([-middle, 0, middle])
    axes[1].set_xlabel("cycles per width", fontsize=8)
    show(axes[2], spectral_pool(image, 10, 1.0)[0], "below 10 cycles: λ = 1", (0, 1))
    show(axes[3], spectral_pool(image, 10, 0.0)[0], "the rest: λ = 0", (-0.25, 0.25))
    return figure


def draw_masks() -> Figure:
    """Draws masks of several balances, and what each makes of the photograph."""
    image = load_photograph(MAP)
    image = image - image.mean()
    balances = (0.1, 0.5, 0.7, 0.8, 0.9)
    figure = Figure(figsize=(10, 4.3), layout="constrained")
    axes = figure.subplots(2, len(balances))
    for (above, below), balance in zip(axes.T, balances, strict=True):
        mask = low_frequency_mask(14, 14, 2, balance)
        drawn = above.imshow(mask, cmap="magma", vmin=0, vmax=1)
        above.set_title(f"mask, λ = {balance}", fontsize=10)
        above.axis("off")
        show(below, spectral_pool(image, 2, balance)[0], "the filtered photograph")
    figure.colorbar(drawn, ax=axes[0], label="gain", shrink=0.9)
    return figure


def draw_rank() -> Figure:
    """Draws the filter as a scaling plus a rank-5 update, and compares it with the FFT."""
    image, balance = load_photograph(MAP), 0.8
    image = image - image.mean()  # otherwise the constant hides the other rows
    limits = (-0.45, 0.45)
    basis = low_frequency_basis(image, 1)  # 5 HW
    scaled = (1 - balance) * image
    filtered = spectral_pool(image, 1, balance, method="basis")
    by_fft = spectral_pool(image, 1, balance, method="fft")
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(2, 5)
    for i, (place, function) in enumerate(zip(axes[0], basis, strict=True)):
        place.imshow(function.reshape(MAP, MAP), cmap="RdBu", vmin=-0.03, vmax=0.03)
        name = "the constant" if i == 0 else ("cosine" if i < 3 else "sine")
        place.set_title(f"Φ, row {i + 1}: {name}", fontsize=10)
        place.axis("off")
    show(axes[1, 0], image[0], "x (its mean is 0)", limits)
    show(axes[1, 1], scaled[0], "(1 - λ) x, here 0.2 x", limits)
    show(
        axes[1, 2], 6 * (filtered - scaled)[0], "+ rank-5 update\n(shown 6 times as strong)", limits
    )
    show(axes[1, 3], filtered[0], "= SPF(x)", limits)
    difference = (filtered - by_fft).abs().max().item()
    show(axes[1, 4], by_fft[0], f"by FFT: largest\ndifference {difference:.0e}", limits)
    return figure


def draw_spam() -> Figure:
    """Draws SPAM as a flow of boxes."""
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    draw_mixer(figure.subplots())
    return figure


def main(folder: str = "docs/figures") -> None:
    """Draws and saves the pictures."""
    drawn = {"spectrum": draw_spectrum, "masks": draw_masks, "rank": draw_rank, "spam": draw_spam}
    for name, draw in drawn.items():
        path = Path(folder) / f"idea_{name}.png"
        draw().savefig(path, dpi=100)
        Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
