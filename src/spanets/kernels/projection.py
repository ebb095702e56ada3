"""Coefficients of the low-frequency basis functions: maps times a thin matrix.

Shape legend: `B` images, `C` channels, `H W` map size, `K` basis functions.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, operator, tl
from spanets.kernels.tiles import block_of

MAX_MODES = 64
"""Largest number of basis functions that a tile holds."""

# Pixels that are read at a time, and channels of a tile: the fastest on an H200. float32 uses half
# as many pixels, to fit into the shared memory of smaller GPUs.
_BLOCK_P, _BLOCK_C = 128, 64


@jit
def _projection_kernel(
    maps,
    basis,
    gain,
    out,
    positions,
    channels,
    modes,
    HAS_GAIN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes some channels of an image; a library's product of so few rows is twice as slow."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mode = tl.arange(0, BLOCK_K)
    inside, used = channel < channels, mode < modes
    total = tl.zeros([BLOCK_K, BLOCK_C], tl.float32)
    for first in range(0, positions, BLOCK_P):
        pixel = first + tl.arange(0, BLOCK_P)
        on_map = pixel < positions
        at = basis + pixel[None, :] * modes + mode[:, None]
        functions = tl.load(at, used[:, None] & on_map[None, :], 0.0)  # K P
        at = (image * positions + pixel[:, None]) * channels + channel[None, :]
        x = tl.load(maps + at, on_map[:, None] & inside[None, :], 0.0)  # P C
        total = tl.dot(functions, x, total, input_precision="ieee")
    kept = used[:, None] & inside[None, :]
    if HAS_GAIN:
        at = gain + channel[None, :] * modes + mode[:, None]
        total *= tl.load(at, kept, 0.0).to(tl.float32)
    at = out + (image * modes + mode[:, None]) * channels + channel[None, :]
    tl.store(at, total.to(out.dtype.element_ty), kept)


def _launch(x: Tensor, basis: Tensor, gain: Tensor | None) -> Tensor:
    batch, channels, height, width = x.shape
    modes = basis.shape[1]
    out = x.new_empty(batch, modes, channels)
    wrap_triton(_projection_kernel)[(batch, divide_up(channels, _BLOCK_C))](
        x,
        basis,
        basis if gain is None else gain,
        out,
        height * width,
        channels,
        modes,
        HAS_GAIN=gain is not None,
        BLOCK_P=_BLOCK_P // 2 if x.dtype == torch.float32 else _BLOCK_P,
        BLOCK_C=_BLOCK_C,
        BLOCK_K=block_of(modes),
    )
    return out


@operator("spanets::project")
def _project(x: Tensor, basis: Tensor) -> Tensor:
    return _launch(x, basis, None)


@operator("spanets::project_with_gain")
def _project_with_gain(x: Tensor, basis: Tensor, gain: Tensor) -> Tensor:
    return _launch(x, basis, gain)


def _setup(ctx, inputs, output) -> None:
    x, basis = inputs
    ctx.save_for_backward(basis)
    ctx.size = x.shape[2:]


def _backward(ctx, grad):
    (basis,) = ctx.saved_tensors
    of_pixels = torch.bmm(basis.expand(grad.shape[0], -1, -1), grad)  # B HW C
    return of_pixels.unflatten(1, ctx.size).permute(0, 3, 1, 2), None


_project.register_autograd(_backward, setup_context=_setup)


def project(x: Tensor, basis: Tensor, gain: Tensor | None = None) -> Tensor:
    """Computes `gᵀ ⊙ (Φᵀ x)`.

    Args:
        x: (B, C, H, W), channels last; `is_supported` must be true.
        basis: Φ, (H·W, K), contiguous, in the type of x, without a gradient; K at most `MAX_MODES`.
        gain: g, (C, K), contiguous; None means 1. With a gain, no gradients are computed.

    Returns:
        (B, K, C).
    """
    with device_of(x):
        return _project(x, basis) if gain is None else _project_with_gain(x, basis, gain)
