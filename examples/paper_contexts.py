"""Draws contexts of SPAM over images, like SPANet's Figure 4, for a checkpoint.

    python examples/paper_contexts.py CHECKPOINT [IMAGE…] [--out docs/figures/contexts.png]

Without images the script draws four solar cells in the style of ELPV's: one sound, one with cracks,
one with a dark region, one with both. ELPV's own images (CC BY-NC-SA 4.0) are not part of this
project.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from spanets.analysis.study.explain import explain

SIDE = 300


def draw_cell(crack: bool, dark: bool, seed: int) -> Image.Image:
    """Draws a cell: bright silicon with stains, three dark bars, and its defects."""
    noise = np.random.default_rng(seed)
    coarse = Image.fromarray(noise.integers(120, 220, (20, 20), dtype=np.uint8))
    cell = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(cell)
    if dark:
        pen.polygon([(130, 110), (210, 170), (190, 250), (110, 200)], fill=35)
    if crack:
        for shift in (0, 25, 45):
            pen.line([(30 + shift, 40), (140 + shift, 160), (150 + shift, 270)], fill=40, width=3)
    for height in (50, 150, 250):
        pen.line([(0, height), (SIDE, height)], fill=45, width=5)
    pen.rectangle([0, 0, SIDE - 1, SIDE - 1], outline=40, width=5)
    return cell.filter(ImageFilter.GaussianBlur(1.2))


def main() -> None:
    """Draws the sheet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/contexts.png"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = list(arguments.images)
        if not images:
            kinds = {"sound": (False, False), "cracked": (True, False), "dark": (False, True)}
            kinds["both"] = (True, True)
            for seed, (name, (crack, dark)) in enumerate(kinds.items()):
                images.append(f"{folder}/{name}.png")
                draw_cell(crack, dark, seed).save(images[-1])
        sheet, _ = explain(arguments.checkpoint, images, folder, ["context"])
        with Image.open(sheet) as picture:  # smaller, for a web page
            picture.convert("RGB").reduce(2).quantize(128).save(arguments.out)


if __name__ == "__main__":
    main()
