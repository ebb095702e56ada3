"""Draws the README's banner: the name behind the spectral pooling filter, λ falling from 1 to 0.

    python examples/banner_figure.py [FILE]

At the left the filter keeps low frequencies alone, drawn in a warm colour; at the right it keeps
high ones alone, in a cold colour; in the middle it changes nothing.
"""

import math
import sys

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from spanets.spectral import spectral_pool

WIDTH, HEIGHT = 1280, 320  # pixels
RADIUS = 27  # of the low frequencies: cycles in the width
WAVES = 0.15  # amplitude of the waves; that of the name is 1
GROUND, WARM, COLD = (0.03, 0.045, 0.1), (1.0, 0.52, 0.16), (0.0, 0.48, 0.84)
Word = tuple[float, float, str]


def draw_words(words: dict[str, Word], size: float, **style: object) -> Tensor:
    """Draws white words on black: alignment -> (x, y, word); returns (HEIGHT, WIDTH), 0 to 1."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    for side, (x, y, word) in words.items():
        figure.text(
            x, y, word, fontsize=size, color="white", ha=side, va="center_baseline", **style
        )
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., 0]).float() / 255


def draw_waves() -> Tensor:
    """Draws waves whose frequency grows from left to right: (WIDTH, WIDTH), from -1 to 1."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, WIDTH), torch.linspace(0, 1, WIDTH), indexing="ij")
    bent = x + 0.12 * torch.cos(math.pi * y)
    fading = torch.sin(math.pi * x).clamp(0) ** 0.4  # the picture is periodic for the filter
    return fading * torch.sin(2 * math.pi * (5 * bent + 60 * bent**3))


def split(picture: Tensor, balance: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the low and the high frequencies of (H, W), times 2 λ and 2 (1 - λ) of its columns.

    The filter is linear in λ, so its two ends are enough for all λ.
    """
    low, high = (spectral_pool(picture[None], RADIUS, end, ring=None)[0] for end in (1.0, 0.0))
    return 2 * balance * low, 2 * (1 - balance) * high


def main(path: str = "docs/figures/banner.jpg") -> None:
    """Draws and saves the banner."""
    shown = slice((WIDTH - HEIGHT) // 2, (WIDTH + HEIGHT) // 2)
    picture = WAVES * draw_waves()  # a square: a bin is the same frequency in both directions
    picture[shown] += draw_words({"center": (0.5, 0.58, "spanets")}, 150, weight="bold")
    along = torch.linspace(-0.2, 1.2, WIDTH).clamp(0, 1)
    low, high = split(picture, 0.5 + 0.5 * torch.cos(math.pi * along))
    light = low[shown, :, None] * torch.tensor(WARM) + high[shown, :, None] * torch.tensor(COLD)
    words = {
        "left": (0.03, 0.07, "λ = 1: low frequencies"),
        "center": (0.5, 0.07, "λ = ½: unchanged"),
        "right": (0.97, 0.07, "λ = 0: high frequencies"),
    }
    light += 0.8 * draw_words(words, 13)[..., None]
    pixels = (255 * (light + torch.tensor(GROUND)).clamp(0, 1)).byte()
    Image.fromarray(pixels.numpy()).save(path, quality=90, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
