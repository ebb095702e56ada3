"""Draws docs/corruptions.jpg: every corruption at every severity.

    python examples/corruptions_figure.py

The photograph is Grace Hopper's, by the U.S. Navy, in the public domain; matplotlib brings it.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image

from spanets.data.corruptions import KINDS, SEVERITIES, corrupt

OUT = Path(__file__).parents[1] / "docs/corruptions.jpg"


def photograph(side: int = 224) -> np.ndarray:
    """Returns a square of the photograph, (side, side, 3)."""
    with get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("RGB")
    width = image.width
    return np.asarray(image.crop((0, 0, width, width)).resize((side, side)))


def main() -> None:
    """Writes the figure: a row a severity, a column a kind, in three bands of five kinds."""
    matplotlib.use("Agg")
    image = photograph()
    columns = 5
    bands = len(KINDS) // columns
    figure = Figure(figsize=(10, 2 * len(SEVERITIES) * bands + 1), layout="constrained")
    grid = figure.subplots(bands * len(SEVERITIES), columns)
    for number, kind in enumerate(KINDS):
        band, column = divmod(number, columns)
        for row, severity in enumerate(SEVERITIES):
            axes = grid[band * len(SEVERITIES) + row, column]
            axes.imshow(corrupt(image, kind, severity))
            axes.set_title(f"{kind} {severity}", fontsize=8)
            axes.set_axis_off()
    figure.savefig(OUT, dpi=75, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main()
