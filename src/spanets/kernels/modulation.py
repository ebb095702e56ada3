"""SPAM's modulation in one pass: maps times (their context plus its low frequencies).

Shape legend: `B` images, `C` channels, `H W` map size, `K` basis functions.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, operator, tl

# Positions and channels of a tile.
_BLOCK_P, _BLOCK_C = 32, 64


@jit
def _modulation_kernel(
    maps,
    high,
    waves,
    low,
    out,
    positions,
    channels,
    modes,
    EXACT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of an image: the low frequencies are a product of two thin matrices."""
    blocks = tl.cdiv(positions, BLOCK_P)
    tile = tl.program_id(0)
    image = (tile // blocks).to(tl.int64)
    position = tile % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mode = tl.arange(0, BLOCK_K)
    at = waves + position[:, None] * modes + mode[None, :]
    basis = tl.load(at, (mode < modes)[None, :] & (position < positions)[:, None], 0.0)
    at = low + (image * modes + mode[:, None]) * channels + channel[None, :]
    weights = tl.load(at, (mode < modes)[:, None] & (channel < channels)[None, :], 0.0)
    context = tl.dot(basis, weights, input_precision="ieee" if EXACT else "tf32")
    kept = (position < positions)[:, None] & (channel < channels)[None, :]
    at = (image * positions + position[:, None]) * channels + channel[None, :]
    context += tl.load(high + at, kept, 0.0).to(tl.float32)
    total = context * tl.load(maps + at, kept, 0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), kept)


def mode_block(modes: int) -> int:
    """Returns the size of the block that holds some basis functions."""
    return next(block for block in (16, 32, 64) if block >= modes)


@operator("spanets::modulate")
def _modulate(x: Tensor, high: Tensor, waves: Tensor, low: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    modes = waves.shape[1]
    out = torch.empty_like(x)
    grid = (batch * divide_up(height * width, _BLOCK_P), divide_up(channels, _BLOCK_C))
    wrap_triton(_modulation_kernel)[grid](
        x,
        high,
        waves,
        low,
        out,
        height * width,
        channels,
        modes,
        EXACT=x.dtype == torch.float32,
        BLOCK_P=_BLOCK_P,
        BLOCK_C=_BLOCK_C,
        BLOCK_K=mode_block(modes),
    )
    return out


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    x, high, waves, low = ctx.saved_tensors
    grad = grad.contiguous(memory_format=torch.channels_last)
    of_high = grad * x
    tokens = of_high.permute(0, 2, 3, 1).flatten(1, 2)  # B HW C
    of_low = torch.bmm(waves.expand(len(x), -1, -1).mT, tokens)
    return _modulate(grad, high, waves, low), of_high, None, of_low


_modulate.register_autograd(_backward, setup_context=_setup)

MAX_MODES = 64
"""Most basis functions that a tile holds."""


def modulate(x: Tensor, high: Tensor, waves: Tensor, low: Tensor) -> Tensor:
    """Computes `x ⊙ (h + (Φ l)ᵀ)`, the modulation of x by a context given in two parts.

    Args:
        x: (B, C, H, W), channels last, of those that `takes` accepts.
        high: h, of the shape, type and layout of x.
        waves: Φ, (H·W, K), in the type of x; K at most `MAX_MODES`.
        low: l, the weights of the basis functions, (B, K, C), in the type of x.

    Returns:
        (B, C, H, W), channels last.
    """
    with device_of(x):
        return _modulate(x, high, waves, low)
