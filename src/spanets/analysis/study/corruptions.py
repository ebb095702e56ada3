"""Corrupts images as ImageNet-C does, and finds the frequencies that a corruption changes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spanets.data.corruptions import corrupt

SEVERITY = 3
"""The middle one of five."""


def corrupt_images(images: Tensor, kind: str, numbers: Sequence[int]) -> Tensor:
    """Returns corrupted images; the same number gives the same draws.

    Args:
        images: Images (B, 3, H, W), in pixel units; values outside of 0 to 1 are clipped.
        kind: One of `spanets.data.corruptions.KINDS`.
        numbers: Indices (B,) of the images in their data set.

    Raises:
        ValueError: the images have other than three channels.
    """
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    corrupted = [
        corrupt(image, kind, SEVERITY, number)
        for image, number in zip(pixels, numbers, strict=True)
    ]
    return torch.from_numpy(np.stack(corrupted)).permute(0, 3, 1, 2).to(images) / 255


def centre_frequency(changes: Tensor) -> Tensor:
    """Returns the mean frequency of each change, weighted by its energy, as a fraction of Nyquist.

    A change of the mean has the frequency 0 and counts, too. Without any change, it is 0.

    Args:
        changes: Corrupted images less the images, (B, C, H, W).
    """
    height, width = changes.shape[-2:]
    u, v = (torch.fft.fftfreq(side, device=changes.device) * 2 for side in (height, width))
    energy = torch.fft.fft2(changes.float()).abs().square().sum(1)
    weighted = (energy * torch.hypot(u[:, None], v[None, :])).sum((-2, -1))
    return weighted / energy.sum((-2, -1)).clamp(min=torch.finfo(energy.dtype).tiny)
