"""GELU and the linear layer after it; also GELU of maps that still need their norm applied.

In training, the activated maps, the widest of a network, are not stored. The backward pass
recomputes them while it reads their input, which it must do anyway.

Shape legend: `B` images, `C` channels out, `D` channels in, `H W` map size.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, lay_out, operator, tl
from spanets.kernels.moments import Normalizer
from spanets.kernels.products import gradient_of_maps, gradients_of_layer, linear

# Pixels and channels of a tile.
_BLOCK_P, _BLOCK_D = 8, 256

# Values of a tile in element-wise kernels.
_BLOCK = 1024


@jit
def normal_cdf(x, EXACT: tl.constexpr):
    """Computes Φ(x), by erf if EXACT, else by a polynomial that takes a third of erf's time.

    The polynomial's error in `x Φ(x)` is at most 5e-5; half precision rounds 1 to 5e-4. It is odd,
    of degree 17, a minimax fit of Φ - 1/2. From |x| = 4.4 on, Φ is set to 0 or 1.
    """
    if EXACT:
        return 0.5 * (1 + tl.erf(x * 0.7071067811865476))
    square = x * x
    total = 3.5725277e-11 * square - 3.75655925e-09
    total = total * square + 1.74169005e-07
    total = total * square - 4.72638393e-06
    total = total * square + 8.43087742e-05
    total = total * square - 1.05508766e-03
    total = total * square + 9.64334511e-03
    total = total * square - 6.60769399e-02
    total = total * square + 3.98761884e-01
    return tl.minimum(tl.maximum(x * total + 0.5, 0.0), 1.0)


@jit
def _forward_kernel(maps, out, count, EXACT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(maps + at, at < count, 0.0).to(tl.float32)
    tl.store(out + at, (x * normal_cdf(x, EXACT)).to(out.dtype.element_ty), at < count)


@jit
def _backward_kernel(maps, grad, of_maps, out, count, EXACT: tl.constexpr, BLOCK: tl.constexpr):
    """Computes the gradient and recomputes the activated maps."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(maps + at, at < count, 0.0).to(tl.float32)
    g = tl.load(grad + at, at < count, 0.0).to(tl.float32)
    cdf = normal_cdf(x, EXACT)
    density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
    tl.store(of_maps + at, (g * (cdf + x * density)).to(of_maps.dtype.element_ty), at < count)
    tl.store(out + at, (x * cdf).to(out.dtype.element_ty), at < count)


@jit
def _normed_kernel(
    maps,
    scale,
    shift,
    sums,
    bias,
    out,
    pixels,
    positions,
    channels,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Computes one tile of pixels and channels: scale, offset, GELU. Tiles may span images."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    image = pixel // positions
    factor = tl.load(scale + image, pixel < pixels, 0.0)[:, None]
    offset = tl.load(shift + image, pixel < pixels, 0.0)[:, None]
    inside = channel < channels
    offset = offset * tl.load(sums + channel, inside, 0.0)[None, :]
    offset += tl.load(bias + channel, inside, 0.0).to(tl.float32)[None, :]
    kept = (pixel < pixels)[:, None] & inside[None, :]
    at = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    x = tl.load(maps + at, kept, 0.0).to(tl.float32)
    x = x * factor + offset
    x *= normal_cdf(x, False)
    tl.store(out + at, x.to(out.dtype.element_ty), kept)


@operator("spanets::normed_gelu")
def _normed_gelu(x: Tensor, scale: Tensor, shift: Tensor, sums: Tensor, bias: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    pixels = batch * height * width
    out = torch.empty_like(x)
    wrap_triton(_normed_kernel)[(divide_up(pixels, _BLOCK_P), divide_up(channels, _BLOCK_D))](
        x,
        scale,
        shift,
        sums,
        bias,
        out,
        pixels,
        height * width,
        channels,
        BLOCK_P=_BLOCK_P,
        BLOCK_D=_BLOCK_D,
    )
    return out


def normed_gelu(x: Tensor, norm: Normalizer, bias: Tensor) -> Tensor:
    """Computes `GELU(s x + t w̄ + b)`: applies the delayed norm and bias to x. No gradients.

    Args:
        x: `W z`, (B, D, H, W), channels last, half precision; `is_supported` must be true.
        norm: s, t and w̄; see `normalizer`.
        bias: b, (D,).

    Returns:
        (B, D, H, W), channels last.
    """
    with device_of(x):
        return _normed_gelu(x, *norm, bias)


@operator("spanets::gelu_linear")
def _gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(x)
    grid, blocks = (divide_up(x.numel(), _BLOCK),), {"EXACT": _exact(x), "BLOCK": _BLOCK}
    wrap_triton(_forward_kernel)[grid](x, out, x.numel(), **blocks)
    return linear(out, weight, bias)


@operator("spanets::gelu_gradients")
def _gelu_gradients(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    of_x, out = torch.empty_like(x), torch.empty_like(x)
    grid, blocks = (divide_up(x.numel(), _BLOCK),), {"EXACT": _exact(x), "BLOCK": _BLOCK}
    wrap_triton(_backward_kernel)[grid](x, grad, of_x, out, x.numel(), **blocks)
    return of_x, out


def _exact(x: Tensor) -> bool:
    return x.dtype == torch.float32


def _setup(ctx, inputs, output) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    x, weight = ctx.saved_tensors
    of_x, out = _gelu_gradients(lay_out(x), gradient_of_maps(grad, weight))
    return of_x, *gradients_of_layer(grad, out)


_gelu_linear.register_autograd(_backward, setup_context=_setup)


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes `W GELU(x) + b`.

    Args:
        x: (B, D, H, W), channels last; `is_supported` must be true.
        weight: W, (C, D), in the type of x.
        bias: b, (C,), in the type of x.

    Returns:
        (B, C, H, W), channels last.
    """
    with device_of(x):
        return _gelu_linear(x, weight, bias)
