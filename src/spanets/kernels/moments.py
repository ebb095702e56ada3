"""Mean and deviation of each image, for inference, measured while a sum of maps is written.

Without its learnt factors, a norm of one group is `s z + t`, with two numbers per image. The linear
layer after it can read z directly: `W (s z + t) + b = s W z + t w̄ + b`, where w̄ holds the row sums
of W. So the normalised maps are never written.

Shape legend: `B` images, `C` channels, `H W` map size, `T` tiles of an image, `D` outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, operator, tl
from spanets.kernels.tiles import count_pixels, place_pixels

# Pixels of a tile, and channels that are summed at a time.
_BLOCK_P, _BLOCK_C = 32, 64

# Tiles that are read at a time, and weight rows that one program sums.
_BLOCK_T, _BLOCK_D = 64, 16


@jit
def store_moments(values, squares, count, at):
    """Stores a tile's mean and sum of squared deviations, from partial sums of both powers."""
    total = tl.sum(tl.sum(values, 1), 0)
    mean = total / count
    tl.store(at, mean)
    tl.store(at + 1, tl.maximum(tl.sum(tl.sum(squares, 1), 0) - total * mean, 0.0))


@jit
def _measure_kernel(
    maps, moments, positions, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Measures one tile of pixels, over all channels."""
    tile = tl.program_id(0)
    image, pixel = place_pixels(tile, positions, BLOCK_P)
    row = (image * positions + pixel)[:, None] * channels
    totals = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, channels, BLOCK_C):
        channel = first + tl.arange(0, BLOCK_C)
        kept = (pixel < positions)[:, None] & (channel < channels)[None, :]
        x = tl.load(maps + row + channel[None, :], kept, 0.0).to(tl.float32)
        totals += x
        squares += x * x
    count = count_pixels(tile, positions, BLOCK_P) * channels
    store_moments(totals, squares, count, moments + tile * 2)


@jit
def _add_kernel(
    maps,
    factor,
    branch,
    out,
    moments,
    positions,
    channels,
    HAS_FACTOR: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Adds two maps and measures the sum as `_measure_kernel` does."""
    tile = tl.program_id(0)
    image, pixel = place_pixels(tile, positions, BLOCK_P)
    row = (image * positions + pixel)[:, None] * channels
    totals = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for first in range(0, channels, BLOCK_C):
        channel = first + tl.arange(0, BLOCK_C)
        kept = (pixel < positions)[:, None] & (channel < channels)[None, :]
        at = row + channel[None, :]
        x = tl.load(maps + at, kept, 0.0).to(tl.float32)
        if HAS_FACTOR:
            x *= tl.load(factor + channel, channel < channels, 0.0).to(tl.float32)[None, :]
        x += tl.load(branch + at, kept, 0.0).to(tl.float32)
        tl.store(out + at, x.to(out.dtype.element_ty), kept)
        totals += x
        squares += x * x
    count = count_pixels(tile, positions, BLOCK_P) * channels
    store_moments(totals, squares, count, moments + tile * 2)


@jit
def _normalizer_kernel(
    moments,
    weight,
    scale,
    shift,
    sums,
    images,
    tiles,
    block,
    positions,
    inputs,
    outputs,
    eps,
    headroom,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The first programs combine the tiles of one image each; the others sum weight rows."""
    image = tl.program_id(0)
    if image < images:
        start = moments + image * tiles * 2
        weighted = tl.zeros([BLOCK_T], tl.float32)
        for first in range(0, tiles, BLOCK_T):
            tile = first + tl.arange(0, BLOCK_T)
            count = tl.minimum(positions - tile * block, block).to(tl.float32)
            weighted += tl.load(start + 2 * tile, tile < tiles, 0.0) * count
        mean = tl.sum(weighted, 0) / positions
        squares = tl.zeros([BLOCK_T], tl.float32)
        for first in range(0, tiles, BLOCK_T):
            tile = first + tl.arange(0, BLOCK_T)
            count = (tl.minimum(positions - tile * block, block) * inputs).to(tl.float32)
            distance = tl.load(start + 2 * tile, tile < tiles, 0.0) - mean
            within = tl.load(start + 2 * tile + 1, tile < tiles, 0.0)
            squares += tl.where(tile < tiles, within + count * distance * distance, 0.0)
        # In floats: a very large image has more values than a 32-bit integer can count.
        factor = tl.rsqrt(tl.sum(squares, 0) / (1.0 * positions * inputs) + eps)
        factor *= headroom
        tl.store(scale + image, factor)
        tl.store(shift + image, -mean * factor)
    else:
        output = (image - images) * BLOCK_D + tl.arange(0, BLOCK_D)
        rows = tl.zeros([BLOCK_D, BLOCK_C], tl.float32)
        for first in range(0, inputs, BLOCK_C):
            channel = first + tl.arange(0, BLOCK_C)
            kept = (output < outputs)[:, None] & (channel < inputs)[None, :]
            at = weight + output[:, None] * inputs + channel[None, :]
            rows += tl.load(at, kept, 0.0).to(tl.float32)
        tl.store(sums + output, tl.sum(rows, 1), output < outputs)


class Moments(NamedTuple):
    """Moments of each image's maps, per tile.

    Attributes:
        parts: Mean and sum of squared deviations of each tile, (B, T, 2), float32.
        block: Pixels of a tile; the last tile of an image may have fewer.
    """

    parts: Tensor
    block: int


def empty_moments(x: Tensor, block: int) -> Tensor:
    """Allocates the moments (B, T, 2) of x, in tiles of `block` pixels."""
    tiles = divide_up(x.shape[2] * x.shape[3], block)
    return x.new_empty(x.shape[0], tiles, 2, dtype=torch.float32)


@operator("spanets::measure")
def _measure(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    moments = empty_moments(x, _BLOCK_P)
    grid = (batch * moments.shape[1],)
    blocks = {"BLOCK_P": _BLOCK_P, "BLOCK_C": _BLOCK_C}
    wrap_triton(_measure_kernel)[grid](x, moments, height * width, channels, **blocks)
    return moments


@operator("spanets::add_and_measure")
def _add_and_measure(x: Tensor, factor: Tensor | None, branch: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    out, moments = torch.empty_like(x), empty_moments(x, _BLOCK_P)
    wrap_triton(_add_kernel)[(batch * moments.shape[1],)](
        x,
        branch if factor is None else factor,
        branch,
        out,
        moments,
        height * width,
        channels,
        HAS_FACTOR=factor is not None,
        BLOCK_P=_BLOCK_P,
        BLOCK_C=_BLOCK_C,
    )
    return out, moments


@operator("spanets::normalizer")
def _normalizer(
    moments: Tensor, block: int, positions: int, weight: Tensor, eps: float, headroom: float
) -> tuple[Tensor, Tensor, Tensor]:
    images, tiles, _ = moments.shape
    outputs, inputs = weight.shape
    scale, shift = moments.new_empty(images), moments.new_empty(images)
    sums = moments.new_empty(outputs)
    wrap_triton(_normalizer_kernel)[(images + divide_up(outputs, _BLOCK_D),)](
        moments,
        weight,
        scale,
        shift,
        sums,
        images,
        tiles,
        block,
        positions,
        inputs,
        outputs,
        eps,
        headroom,
        BLOCK_T=_BLOCK_T,
        BLOCK_D=_BLOCK_D,
        BLOCK_C=_BLOCK_C,
    )
    return scale, shift, sums


def measure(x: Tensor) -> Moments:
    """Measures each image's maps, without gradients.

    Args:
        x: (B, C, H, W), channels last; `is_supported` must be true.
    """
    with device_of(x):
        return Moments(_measure(x), _BLOCK_P)


def add_and_measure(x: Tensor, factor: Tensor | None, branch: Tensor) -> tuple[Tensor, Moments]:
    """Computes `f ⊙ x + branch` and measures it, without gradients.

    Args:
        x: (B, C, H, W), channels last; `is_supported` must be true.
        factor: f, (C,); None is 1.
        branch: Maps with the shape, type and layout of x.

    Returns:
        The sum, (B, C, H, W), channels last, and its moments.
    """
    with device_of(x):
        out, parts = _add_and_measure(x, factor, branch)
    return out, Moments(parts, _BLOCK_P)


class Normalizer(NamedTuple):
    """A norm, expressed as a change to the output of the linear layer after it.

    Attributes:
        scale: s of each image, headroom / deviation, (B,), float32.
        shift: t of each image, -headroom · mean / deviation, (B,), float32.
        sums: w̄, the row sums of the layer's weight, (D,), float32.
    """

    scale: Tensor
    shift: Tensor
    sums: Tensor


def normalizer(
    moments: Moments, positions: int, weight: Tensor, eps: float, headroom: float = 1.0
) -> Normalizer:
    """Returns s, t and w̄ of `h W norm(x) = s W x + t w̄`.

    Args:
        moments: Moments of x.
        positions: H·W of x.
        weight: W, (D, C), contiguous, already divided by the headroom.
        eps: Constant that is added to the variance.
        headroom: h, the divisor of W.
    """
    parts, block = moments
    with device_of(weight):
        return Normalizer(*_normalizer(parts, block, positions, weight, eps, headroom))
