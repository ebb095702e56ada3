"""Draws the README's figure: the spectral pooling mask, its basis, and SPAM.

python examples/readme_figure.py [FILE]
"""

import sys

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from spanets.spectral import low_frequency_basis, low_frequency_mask

SIZE, RADIUS, BALANCE = 14, 2, 0.8
INK, ACCENT = "#1f2a44", "#c2410c"


def draw_mask(axes: Axes) -> None:
    """Draws the mask with its values."""
    mask = low_frequency_mask(SIZE, SIZE, RADIUS, BALANCE)
    axes.imshow(mask, cmap="magma", vmin=0, vmax=1)
    axes.set_title("the filter's mask: λ in the disc,\nρ on its ring, 1 - λ elsewhere", fontsize=10)
    axes.set_xticks([0, SIZE // 2, SIZE - 1], [f"{-SIZE // 2}", "0", f"{SIZE // 2 - 1}"])
    axes.set_yticks([0, SIZE // 2, SIZE - 1], [f"{-SIZE // 2}", "0", f"{SIZE // 2 - 1}"])
    axes.set_xlabel("horizontal frequency (bins)")
    axes.set_ylabel("vertical frequency (bins)")


def draw_basis(axes: Axes) -> None:
    """Draws the low-frequency basis functions in a grid."""
    basis = low_frequency_basis(torch.empty(1, 1, 28, 28), RADIUS).unflatten(1, (28, 28))
    pairs = (len(basis) - 1) // 2
    gap, rows = 4, [basis[1 : 1 + pairs], basis[1 + pairs :]]
    canvas = torch.full((2 * 28 + gap, (pairs + 1) * (28 + gap) - gap), float("nan"))
    canvas[14 + gap // 2 : 42 + gap // 2, :28] = basis[0]
    for i, row in enumerate(rows):
        for j, function in enumerate(row):
            left = (j + 1) * (28 + gap)
            canvas[i * (28 + gap) : i * (28 + gap) + 28, left : left + 28] = function
    axes.imshow(canvas, cmap="RdBu")
    axes.set_title(
        f"only {len(basis)} frequencies differ from 1 - λ: the filter is a scaling plus a\n"
        f"rank-{len(basis)} update on these functions Φ, and needs no FFT",
        fontsize=10,
    )
    axes.axis("off")


def draw_mixer(axes: Axes) -> None:
    """Draws SPAM as a flow of boxes."""
    axes.set(xlim=(0, 100), ylim=(0, 30))
    axes.axis("off")

    def box(x: float, y: float, width: float, text: str, color: str = INK) -> None:
        patch = FancyBboxPatch(
            (x, y), width, 7, boxstyle="round,pad=0.3,rounding_size=1", fc="white", ec=color, lw=1.4
        )
        axes.add_patch(patch)
        axes.text(x + width / 2, y + 3.5, text, ha="center", va="center", fontsize=9, color=color)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.2})

    box(3, 11.5, 10, "linear")
    box(18, 11.5, 15, "depth-wise\n1×7, then 7×1")
    for i, balance in enumerate((0.7, 0.8, 0.9)):
        box(42, 21.5 - 10 * i, 18, f"SPF, λ = {balance}", ACCENT)
        arrow((33.5, 15), (41.4, 25 - 10 * i))
        box(64, 21.5 - 10 * i, 8, "1×1")
        arrow((60.5, 25 - 10 * i), (63.4, 25 - 10 * i))
        arrow((72.5, 25 - 10 * i), (77.6, 15.6 - 0.6 * i))
    arrow((0, 15), (2.4, 15))
    arrow((13.5, 15), (17.4, 15))
    axes.text(79, 15, "+", ha="center", va="center", fontsize=15, color=INK)
    arrow((80.4, 15), (83.4, 15))
    axes.text(85, 15, "⊙", ha="center", va="center", fontsize=15, color=INK)
    axes.plot([36, 36, 85, 85], [15, 29.6, 29.6, 17], color=INK, lw=1.2)
    arrow((86.6, 15), (89.4, 15))
    box(90, 11.5, 8, "linear")
    axes.set_title(
        "SPAM, the token mixer: three filters balance low and high frequencies; their sum "
        "modulates the features",
        fontsize=10,
    )


def main(path: str = "docs/spanet.png") -> None:
    """Draws and saves the figure."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    left, right = top.subplots(1, 2, width_ratios=(1, 2.4))
    draw_mask(left)
    draw_basis(right)
    draw_mixer(bottom.subplots())
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main(*sys.argv[1:])
