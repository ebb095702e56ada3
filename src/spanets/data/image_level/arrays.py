"""Training on images of 1 to 16 channels and any depth: augmentation."""

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import v2

from spanets.data.image_level.recipe import ImageLevelData
from spanets_runtime.arrays import PixelFormat, resize_channels
from spanets_runtime.preprocessing import FILTERS

_RGB_ONLY = ("color_jitter", "auto_augment")
"""Keys of augmentation that need 8-bit RGB."""


class ArrayTransform:
    """timm's training transform for arrays: a random crop, resized, and flips.

    It draws the same random numbers as timm's transform of 8-bit RGB.

    Args:
        data: The data section.
        pixels: How its images are read.
    """

    def __init__(self, data: ImageLevelData, pixels: PixelFormat) -> None:
        self.pixels = pixels
        self.crop = RandomResizedCropAndInterpolation(
            data.image_size, data.scale, data.ratio, data.train_interpolation
        )
        flips = ((v2.RandomHorizontalFlip, data.hflip), (v2.RandomVerticalFlip, data.vflip))
        self.flips = [kind(chance) for kind, chance in flips if chance]

    def __call__(self, image: NDArray[Any]) -> Tensor:
        """Maps an image (H, W, C) to (C, S, S), float32, scaled but not standardized."""
        size: Any = torch.empty((1, *image.shape[:2]), device="meta")  # of which only sides count
        top, left, height, width = self.crop.get_params(size, self.crop.scale, self.crop.ratio)
        how: Any = self.crop.interpolation
        how = random.choice(how) if isinstance(how, tuple) else how
        part = image[top : top + height, left : left + width]
        resized = resize_channels(part, self.crop.size, FILTERS[how.value])
        unit = self.pixels.to_unit(resized, image.dtype).transpose(2, 0, 1)
        found = torch.from_numpy(np.ascontiguousarray(unit))
        for flip in self.flips:
            found = flip(found)
        return found


def describe_arrays(data: ImageLevelData) -> tuple[str, ...]:
    """Returns a line about keys of augmentation that are left out for arrays, if any are set."""
    named = [f"data.{key} {value}" for key in _RGB_ONLY if (value := getattr(data, key))]
    if data.channels is None or not named:
        return ()
    return (f"data.channels {data.channels}: left out, for 8-bit RGB only: {', '.join(named)}",)
