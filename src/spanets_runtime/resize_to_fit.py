"""Resizes whole images, with their aspect ratio, for networks that take any size."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.preprocessing import refuse_damaged, standardize

MIN_SIDE = 32
"""The smallest side that backbones take; a very elongated image is stretched to it."""

MAX_SIDE = 16384
"""The largest side that a checkpoint or an exported file may ask for."""


def fit_size(
    height: int, width: int, short: float, long: float, factor: float = 1.0
) -> tuple[int, int]:
    """Returns the largest height and width with this aspect ratio that fit two limits.

    Args:
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        short: Limit of the shorter side.
        long: Limit of the longer side.
        factor: Multiplies both sides of the result.
    """
    low, high = sorted((height, width))
    scale = factor * min(long / high, short / low)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


@dataclass(frozen=True)
class ResizeToFit:
    """Resizes an image to fit two limits (Pillow, bilinear), then standardizes it.

    Attributes:
        resize: Limits of the shorter and the longer side, in pixels.
        mean: Mean of each channel, for values from 0 to 1.
        std: Standard deviation of each channel, for values from 0 to 1.
    """

    resize: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def parse(cls, values: Mapping[str, Any], path: str | Path) -> Self:
        """Reads the values that checkpoints and exported models carry.

        Raises:
            UserError: the values are damaged; the message names `path`.
        """
        with refuse_damaged(path):
            short, long = map(int, values["resize"])
            mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
            if not MIN_SIDE <= short <= long <= MAX_SIDE:
                raise ValueError(f"resize is {[short, long]}, must be {MIN_SIDE} to {MAX_SIDE}")
            if len(mean) != 3 or len(std) != 3 or not all(std):
                raise ValueError("mean and std need three numbers, std none that is 0")
        return cls((short, long), mean, std)

    def __call__(self, image: Image.Image, least: int = MIN_SIDE) -> NDArray[np.float32]:
        """Maps an RGB image to (3, H, W), float32; no side is shorter than `least` pixels."""
        size = fit_size(image.height, image.width, *self.resize)
        height, width = (max(least, side) for side in size)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return standardize(np.asarray(image), self.mean, self.std)
