"""Masks of 0 and 1 with eight pixels to a byte: a thousand of 800×1067 take 107 MB, not 854."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pack_masks(masks: Iterable[NDArray[np.uint8]], count: int, height: int, width: int) -> Tensor:
    """Returns masks (H, W) of 0 and 1 as bits (N, H, ⌈W / 8⌉), each packed before the next is made.

    Args:
        masks: As many as `count`.
        count: N.
        height, width: Of each.
    """
    bits = np.zeros((count, height, -(-width // 8)), dtype=np.uint8)
    for room, mask in zip(bits, masks, strict=True):
        room[:] = np.packbits(mask, axis=1)
    return torch.from_numpy(bits)


def unpack_masks(bits: Tensor, width: int) -> Tensor:
    """Returns bits (N, H, ⌈W / 8⌉) as masks (N, H, W) of 0 and 1, on the same device."""
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=bits.device)  # the highest first
    return ((bits[..., None] >> places) & 1).flatten(-2)[..., :width]


def count_pixels(bits: Tensor) -> Tensor:
    """Returns how many pixels of bits (N, H, ⌈W / 8⌉) are 1, (N,) in float32."""
    counts = [np.unpackbits(mask).sum(dtype=np.int64) for mask in bits.numpy()]
    return torch.tensor(counts, dtype=torch.float32)
