"""Turns logits into the class of each pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Largest number of logits resized at a time, 256 MB.
_RESIZED_VALUES = 64 * 2**20


def label_map(logits: Tensor, height: int, width: int) -> Tensor:
    """Returns the most likely class of each pixel, (H, W), int64.

    The result is the argmax of the bilinearly resized logits. Only a few classes are resized at a
    time, because those of all classes at the size of a large photograph would not fit into memory.

    Args:
        logits: Logits of one image, (1, classes, h, w).
        height: Height of the result in pixels.
        width: Width of the result in pixels.
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
