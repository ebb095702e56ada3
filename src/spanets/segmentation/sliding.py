"""Segmentation of images larger than those of training, window by window."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from spanets_runtime.windows import windows

WINDOW, STRIDE = 512, 341
"""Side of the window and its step, in pixels: the papers'."""


def slide(
    model: Callable[[Tensor], Tensor], images: Tensor, window: int = WINDOW, stride: int = STRIDE
) -> Tensor:
    """Returns the mean of the logits of all windows that see a pixel, (B, classes, H, W).

    Args:
        model: From images (B, C, h, w) to logits (B, classes, h, w).
        images: (B, C, H, W), perhaps smaller than the window.
        window: Side of the square window, in pixels.
        stride: From a window to the next.
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
    """Returns logits (B, classes, H, W) as a checkpoint's `preprocessing` says: whole or sliding.

    Args:
        model: In evaluation mode.
        images: (B, 3, H, W).
        preprocessing: Its "test" is "whole" or "slide", its "slide" step and side of the window.
    """
    if preprocessing["test"] == "whole":
        return model(images)
    stride, window = preprocessing["slide"]
    return slide(model, images, window, stride)
