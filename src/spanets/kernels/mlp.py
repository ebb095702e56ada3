"""The MLP half of a block in one pass, for inference: norm, MLP and shortcut.

In the first stages, which have few channels, the hidden maps dominate the cost: they are four times
as wide as their input, and are written and read twice. Here they stay on the chip.

Shape legend: `B` images, `C` channels, `H W` map size, `D` hidden channels.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, operator, tl
from spanets.kernels.gelu import normal_cdf
from spanets.kernels.tiles import block_of

MAX_CHANNELS = 128
"""Largest number of channels; with more, a library's matrix products are faster."""

# Pixels of a tile: the fastest on an H200.
_BLOCK_P = 64


@jit
def _mlp_kernel(
    maps,
    scale,
    shift,
    weight1,
    bias1,
    weight2,
    bias2,
    out,
    pixels,
    positions,
    channels,
    HIDDEN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Computes all channels of one tile of pixels, with the hidden channels in blocks."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)
    inside = channel < channels
    kept = (pixel < pixels)[:, None] & inside[None, :]
    at = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    x = tl.load(maps + at, kept, 0.0).to(tl.float32)
    image = pixel // positions
    factor = tl.load(scale + image, pixel < pixels, 0.0)[:, None]
    offset = tl.load(shift + image, pixel < pixels, 0.0)[:, None]
    normed = (x * factor + offset).to(maps.dtype.element_ty)
    total = tl.load(bias2 + channel, inside, 0.0).to(tl.float32)[None, :] + x
    for first in range(0, HIDDEN, BLOCK_D):
        unit = first + tl.arange(0, BLOCK_D)
        used = unit < HIDDEN
        weight = weight1 + unit[None, :] * channels + channel[:, None]
        weight = tl.load(weight, used[None, :] & inside[:, None], 0.0)  # C D
        hidden = tl.dot(normed, weight) + tl.load(bias1 + unit, used, 0.0).to(tl.float32)[None, :]
        weight = weight2 + channel[None, :] * HIDDEN + unit[:, None]
        weight = tl.load(weight, used[:, None] & inside[None, :], 0.0)  # D C
        hidden *= normal_cdf(hidden, False)
        total = tl.dot(hidden.to(maps.dtype.element_ty), weight, total)
    tl.store(out + at, total.to(out.dtype.element_ty), kept)


@operator("spanets::add_mlp")
def _add_mlp(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    batch, channels, height, width = x.shape
    out = torch.empty_like(x)
    pixels = batch * height * width
    wrap_triton(_mlp_kernel)[(divide_up(pixels, _BLOCK_P),)](
        x,
        scale,
        shift,
        weight1,
        bias1,
        weight2,
        bias2,
        out,
        pixels,
        height * width,
        channels,
        HIDDEN=weight1.shape[0],
        BLOCK_P=_BLOCK_P,
        BLOCK_C=block_of(channels),
        # The faster of the two, on an H200.
        BLOCK_D=32 if channels <= 64 else 64,
    )
    return out


def add_mlp(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    """Computes `x + W₂ GELU(W₁ (s x + t) + b₁) + b₂`, without gradients.

    Args:
        x: (B, C, H, W), channels last, half precision; `is_supported` must be true. C at most
            `MAX_CHANNELS`.
        scale: s of each image, (B,), float32; see `normalizer`.
        shift: t of each image, (B,), float32; see `normalizer`.
        weight1: W₁ (D, C), contiguous, in the type of x.
        bias1: b₁ (D,).
        weight2: W₂ (C, D), contiguous, in the type of x.
        bias2: b₂ (C,).

    Returns:
        (B, C, H, W), channels last.
    """
    with device_of(x):
        return _add_mlp(x, scale, shift, weight1, bias1, weight2, bias2)
