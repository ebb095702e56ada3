"""From logits to the class of each pixel, and to pictures of it."""

import colorsys

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# Logits that are resized at a time: 256 MB.
_RESIZED_VALUES = 64 * 2**20


def label_map(logits: Tensor, height: int, width: int) -> Tensor:
    """Returns the likeliest class of each pixel, (H, W), int64.

    The same as the maximum of the bilinearly resized logits, of which only a few classes exist at
    a time: those of all classes at the size of a large photograph would not fit into memory.

    Args:
        logits: Of one image, (1, classes, h, w).
        height: Of the result.
        width: Of the result.
    """
    best, labels = None, torch.zeros(height, width, dtype=torch.long, device=logits.device)
    count = max(1, _RESIZED_VALUES // (height * width))
    for first in range(0, logits.shape[1], count):
        part = logits[:, first : first + count].float()
        resized = F.interpolate(part, (height, width), mode="bilinear", align_corners=False)
        values, indices = resized[0].max(0)
        better = torch.ones_like(labels, dtype=torch.bool) if best is None else values > best
        labels = torch.where(better, indices + first, labels)
        best = values if best is None else torch.maximum(best, values)
    return labels


def class_colours(count: int) -> NDArray[np.uint8]:
    """Returns colours (count, 3) that can be told apart, the first of them dark gray.

    Hues are a golden section apart, so that the first few are as far from each other as they can.
    """
    colours = [(0.35, 0.35, 0.35)]
    for i in range(count - 1):
        value, saturation = (1.0, 0.7, 0.85)[i % 3], (0.75, 0.9, 0.5)[i // 3 % 3]
        colours.append(colorsys.hsv_to_rgb(0.61803 * i % 1, saturation, value))
    return (255 * np.array(colours[:count])).round().astype(np.uint8)


def mask_image(labels: NDArray[np.uint8], classes: int, first: int = 0) -> Image.Image:
    """Returns a mask as an image of numbers, with a palette for those who look at it.

    Args:
        labels: Of the pixels, (H, W).
        classes: How many there are.
        first: The number to write for class 0.
    """
    image = Image.fromarray(labels + np.uint8(first))
    image.putpalette(bytes(3 * first) + class_colours(classes).tobytes())
    return image


def overlay(image: Image.Image, labels: NDArray[np.uint8], classes: int) -> Image.Image:
    """Returns an RGB image in gray, with its classes' colours laid over it."""
    colours = Image.fromarray(class_colours(classes)[labels])
    return Image.blend(image.convert("L").convert("RGB"), colours, 0.5)
