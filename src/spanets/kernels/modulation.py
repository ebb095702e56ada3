"""SPAM's modulation in one pass: maps times the sum of both parts of their context.

The modulated maps are not stored; the backward pass recomputes them for the projection's gradient.

Shape legend: `B` images, `C` channels, `H W` map size, `K` basis functions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, lay_out, operator, tl
from spanets.kernels.products import gradient_of_maps, gradients_of_layer, linear
from spanets.kernels.projection import project
from spanets.kernels.tiles import block_of, place_pixels

# Positions and channels of a tile.
_BLOCK_P, _BLOCK_C = 32, 64


@jit
def _context(
    high,
    basis,
    low,
    image,
    pixel,
    channel,
    positions,
    channels,
    modes,
    at,
    BLOCK_K: tl.constexpr,
):
    """Returns the context of a tile; its low frequencies are a product of two thin matrices."""
    mode = tl.arange(0, BLOCK_K)
    on_map, inside = pixel < positions, channel < channels
    basis = basis + pixel[:, None] * modes + mode[None, :]
    basis = tl.load(basis, (mode < modes)[None, :] & on_map[:, None], 0.0)
    weights = low + (image * modes + mode[:, None]) * channels + channel[None, :]
    weights = tl.load(weights, (mode < modes)[:, None] & inside[None, :], 0.0)
    context = tl.dot(basis, weights, input_precision="ieee")
    return context + tl.load(high + at, on_map[:, None] & inside[None, :], 0.0).to(tl.float32)


@jit
def _modulation_kernel(
    maps,
    high,
    basis,
    low,
    out,
    positions,
    channels,
    modes,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes one tile of an image."""
    image, pixel = place_pixels(tl.program_id(0), positions, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    kept = (pixel < positions)[:, None] & (channel < channels)[None, :]
    at = (image * positions + pixel[:, None]) * channels + channel[None, :]
    context = _context(
        high, basis, low, image, pixel, channel, positions, channels, modes, at, BLOCK_K
    )
    total = context * tl.load(maps + at, kept, 0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), kept)


@jit
def _gradients_kernel(
    maps,
    high,
    basis,
    low,
    grad,
    of_maps,
    of_high,
    out,
    positions,
    channels,
    modes,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes the gradients of one tile and recomputes the modulated maps."""
    image, pixel = place_pixels(tl.program_id(0), positions, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    kept = (pixel < positions)[:, None] & (channel < channels)[None, :]
    at = (image * positions + pixel[:, None]) * channels + channel[None, :]
    context = _context(
        high, basis, low, image, pixel, channel, positions, channels, modes, at, BLOCK_K
    )
    x = tl.load(maps + at, kept, 0.0).to(tl.float32)
    g = tl.load(grad + at, kept, 0.0).to(tl.float32)
    tl.store(of_maps + at, (g * context).to(of_maps.dtype.element_ty), kept)
    tl.store(of_high + at, (g * x).to(of_high.dtype.element_ty), kept)
    tl.store(out + at, (x * context).to(out.dtype.element_ty), kept)


def _cut(x: Tensor, basis: Tensor) -> tuple[tuple[int, int], tuple[int, int, int], dict[str, Any]]:
    """Returns grid, sizes and blocks of the kernels."""
    batch, channels, height, width = x.shape
    grid = (batch * divide_up(height * width, _BLOCK_P), divide_up(channels, _BLOCK_C))
    blocks = {
        "BLOCK_P": _BLOCK_P,
        "BLOCK_C": _BLOCK_C,
        "BLOCK_K": block_of(basis.shape[1]),
    }
    return grid, (height * width, channels, basis.shape[1]), blocks


def _launch(x: Tensor, high: Tensor, basis: Tensor, low: Tensor) -> Tensor:
    out = torch.empty_like(x)
    grid, sizes, blocks = _cut(x, basis)
    wrap_triton(_modulation_kernel)[grid](x, high, basis, low, out, *sizes, **blocks)
    return out


@operator("spanets::modulate")
def _modulate(x: Tensor, high: Tensor, basis: Tensor, low: Tensor) -> Tensor:
    return _launch(x, high, basis, low)


@operator("spanets::modulated_linear")
def _modulated_linear(
    x: Tensor, high: Tensor, basis: Tensor, low: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    return linear(_launch(x, high, basis, low), weight, bias)


@operator("spanets::modulation_gradients")
def _modulation_gradients(
    x: Tensor, high: Tensor, basis: Tensor, low: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_x, of_high, out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    grid, sizes, blocks = _cut(x, basis)
    wrap_triton(_gradients_kernel)[grid](
        x, high, basis, low, grad, of_x, of_high, out, *sizes, **blocks
    )
    return of_x, of_high, out


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:5])


def _gradients(
    x: Tensor, high: Tensor, basis: Tensor, low: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of x, h and l, and the modulated maps."""
    x, high, grad = lay_out(x), lay_out(high), lay_out(grad)
    of_x, of_high, out = _modulation_gradients(x, high, basis, low, grad)
    return of_x, of_high, project(of_high, basis), out


def _backward(ctx, grad):
    of_x, of_high, of_low, _ = _gradients(*ctx.saved_tensors, grad)
    return of_x, of_high, None, of_low


def _linear_backward(ctx, grad):
    # Read `saved_tensors` once: activation checkpointing recomputes them only once.
    *kept, weight = ctx.saved_tensors
    of_x, of_high, of_low, out = _gradients(*kept, gradient_of_maps(grad, weight))
    return of_x, of_high, None, of_low, *gradients_of_layer(grad, out)


_modulate.register_autograd(_backward, setup_context=_setup)
_modulated_linear.register_autograd(_linear_backward, setup_context=_setup)


def modulate(x: Tensor, high: Tensor, basis: Tensor, low: Tensor) -> Tensor:
    """Computes `x ⊙ (h + (Φ l)ᵀ)`, the modulation of x by a context given in two parts.

    Args:
        x: (B, C, H, W), channels last; `is_supported` must be true.
        high: h, with the shape, type and layout of x.
        basis: Φ, (H·W, K), in the type of x; K at most `MAX_MODES`.
        low: l, the coefficients of the basis functions, (B, K, C), in the type of x.

    Returns:
        (B, C, H, W), channels last.
    """
    with device_of(x):
        return _modulate(x, high, basis, low)


def modulated_linear(
    x: Tensor, high: Tensor, basis: Tensor, low: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Computes `W (x ⊙ (h + (Φ l)ᵀ)) + b`.

    Args:
        x, high, basis, low: See `modulate`.
        weight: W, (D, C), in the type of x.
        bias: b, (D,), in the type of x.

    Returns:
        (B, D, H, W), channels last.
    """
    with device_of(x):
        return _modulated_linear(x, high, basis, low, weight, bias)
