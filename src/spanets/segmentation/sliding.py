"""Sliding-window segmentation of images larger than the training crops."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from spanets_runtime.windows import windows

WINDOW, STRIDE = 512, 341
"""Side and step of the window in pixels, as in the papers."""


def slide(
    model: Callable[[Tensor], Tensor], images: Tensor, window: int = WINDOW, stride: int = STRIDE
) -> Tensor:
    """Returns logits (B, classes, H, W): at each pixel, the mean over all windows that contain it.

    Args:
        model: Maps images (B, C, h, w) to logits (B, classes, h, w).
        images: (B, C, H, W), possibly smaller than the window.
        window: Side of the square window in pixels.
        stride: Step between windows in pixels.
    """
    height, width = images.shape[2:]
    total: Tensor | None = None
    seen = torch.zeros(height, width, device=images.device)
    for rows, columns in windows(height, width, window, stride):
        here = (..., rows, columns)
        logits = model(images[here])
        if total is None:
            total = logits.new_zeros(*logits.shape[:2], height, width)
        total[here] += logits
        seen[here] += 1
    assert total is not None
    return total / seen


def infer(
    model: Callable[[Tensor], Tensor], images: Tensor, preprocessing: Mapping[str, Any]
) -> Tensor:
    """Returns logits (B, classes, H, W), from whole images or sliding windows.

    Args:
        model: The segmenter, in evaluation mode.
        images: (B, 3, H, W).
        preprocessing: Preprocessing of a checkpoint: "test" is "whole" or "slide", and "slide" the
            step and side of the window.
    """
    if preprocessing["test"] == "whole":
        return model(images)
    stride, window = preprocessing["slide"]
    return slide(model, images, window, stride)
