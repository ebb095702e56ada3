"""Writes two classes of small images: noise of low and of high spatial frequency.

python studies/generated_images.py generated
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
CLASSES = {"low": 4, "high": 16}  # grid of independent values, from which the noise is enlarged


def write_images(root: Path, each: int = 8) -> None:
    """Writes the images of each class into a folder of its name."""
    random = np.random.default_rng(0)
    for name, grid in CLASSES.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            noise = random.integers(0, 256, (grid, grid, 3), dtype=np.uint8)
            image = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            image.save(root / name / f"{number}.png")


if __name__ == "__main__":
    write_images(Path(sys.argv[1]))
