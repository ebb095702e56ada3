"""The second half of SPAM in one pass, for inference: context, modulation, projection and shortcut.

In the first stages, which have few channels, a pass over memory costs more than these products.

Shape legend: `B` images, `C` channels, `H W` map size, `K` basis functions.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, operator, tl
from spanets.kernels.mlp import MAX_CHANNELS
from spanets.kernels.moments import Moments, empty_moments, store_moments
from spanets.kernels.tiles import block_of, count_pixels, place_pixels

# Pixels of a tile: the fastest on an H200.
_BLOCK_P = 64


@jit
def _mixing_kernel(
    maps,
    shortcut,
    basis,
    low,
    high_weight,
    high_bias,
    out_weight,
    out_bias,
    out,
    moments,
    positions,
    channels,
    modes,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes all channels of one tile of pixels, and the tile's moments."""
    tile = tl.program_id(0)
    image, pixel = place_pixels(tile, positions, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)
    mode = tl.arange(0, BLOCK_K)
    inside, on_map = channel < channels, pixel < positions
    square = inside[:, None] & inside[None, :]
    kept = on_map[:, None] & inside[None, :]
    at = (image * positions + pixel[:, None]) * channels + channel[None, :]
    x = tl.load(maps + at, kept, 0.0)
    weight = high_weight + channel[None, :] * channels + channel[:, None]
    context = tl.dot(x, tl.load(weight, square, 0.0))
    functions = basis + pixel[:, None] * modes + mode[None, :]
    functions = tl.load(functions, (mode < modes)[None, :] & on_map[:, None], 0.0)
    weight = low + (image * modes + mode[:, None]) * channels + channel[None, :]
    weight = tl.load(weight, (mode < modes)[:, None] & inside[None, :], 0.0)
    context = tl.dot(functions, weight, context)
    context += tl.load(high_bias + channel, inside, 0.0).to(tl.float32)[None, :]
    mixed = (context * x.to(tl.float32)).to(maps.dtype.element_ty)
    weight = out_weight + channel[None, :] * channels + channel[:, None]
    total = tl.dot(mixed, tl.load(weight, square, 0.0))
    total += tl.load(out_bias + channel, inside, 0.0).to(tl.float32)[None, :]
    total += tl.load(shortcut + at, kept, 0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), kept)
    total = tl.where(kept, total, 0.0)
    count = count_pixels(tile, positions, BLOCK_P) * channels
    store_moments(total, total * total, count, moments + tile * 2)


@operator("spanets::add_modulated")
def _add_modulated(
    x: Tensor,
    shortcut: Tensor,
    basis: Tensor,
    low: Tensor,
    high_weight: Tensor,
    high_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    modes = basis.shape[1]
    out, moments = torch.empty_like(x), empty_moments(x, _BLOCK_P)
    wrap_triton(_mixing_kernel)[(batch * divide_up(height * width, _BLOCK_P),)](
        x,
        shortcut,
        basis,
        low,
        high_weight,
        high_bias,
        out_weight,
        out_bias,
        out,
        moments,
        height * width,
        channels,
        modes,
        BLOCK_P=_BLOCK_P,
        BLOCK_C=block_of(channels),
        BLOCK_K=block_of(modes),
    )
    return out, moments


def add_modulated(
    x: Tensor,
    shortcut: Tensor,
    basis: Tensor,
    low: Tensor,
    high_weight: Tensor,
    high_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Moments]:
    """Computes `z + W (x ⊙ (V x + c + (Φ l)ᵀ)) + b` and measures it, without gradients.

    Args:
        x: (B, C, H, W), channels last, half precision; `is_supported` must be true. C at most
            `MAX_CHANNELS`.
        shortcut: z, with the shape, type and layout of x.
        basis: Φ, (H·W, K), in the type of x; K at most `MAX_MODES`.
        low: l, the coefficients of the basis functions, (B, K, C), in the type of x.
        high_weight: V, (C, C), contiguous, in the type of x.
        high_bias: c, (C,).
        out_weight: W, (C, C), contiguous, in the type of x.
        out_bias: b, (C,).

    Returns:
        The sum, (B, C, H, W), channels last, and its moments.
    """
    assert x.shape[1] <= MAX_CHANNELS
    with device_of(x):
        out, parts = _add_modulated(
            x, shortcut, basis, low, high_weight, high_bias, out_weight, out_bias
        )
    return out, Moments(parts, _BLOCK_P)
