"""A separable depth-wise convolution in one pass: a row of taps, then a column of taps.

cuDNN's kernels for depth-wise filters of 1×K and K×1 on channels-last maps took 0.65 of
SPANet-small's time on an H200, fifty times what reading and writing the maps takes.

Shape legend: `B` images, `C` channels, `H W` map size, `K` taps.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, jit, lay_out, operator, tl, with_warps
from spanets.kernels.moments import Normalizer
from spanets.kernels.tap_gradients import tap_gradients
from spanets.kernels.windows import (
    BLOCK_X,
    ROWS,
    RUN,
    columns_on_map,
    convolve_row,
    cut,
    load_channels,
    load_row,
    load_taps,
    place,
    zeros,
)

MAX_TAPS = 7
"""Longest filter; with 9 taps or more, the window of rows does not fit into registers."""


@with_warps(2)  # the fastest on an H200
@jit
def _separable_kernel(
    maps,
    row,
    row_bias,
    column,
    column_bias,
    scale,
    shift,
    sums,
    bias,
    out,
    height,
    width,
    channels,
    K: tl.constexpr,
    FLIP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    NORMED: tl.constexpr,
    BLOCK_H: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moves a window of K - 1 rows of the row filter's output down a strip of an image.

    NORMED maps still need a scale and an offset, but not on the padding. The scale multiplies the
    taps. In each column, the offset is multiplied by the sum of the taps that lie on the map.
    """
    BEFORE: tl.constexpr = K // 2
    x, top, image = place(tl.program_id(0), height, width, BLOCK_H, RUN, BLOCK_X)
    bottom = tl.minimum(top + BLOCK_H, height)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    row_taps = load_taps(row, channel, inside, K, FLIP)
    column_taps = load_taps(column, channel, inside, K, FLIP)
    row_offset = load_channels(row_bias, channel, inside, HAS_BIAS)
    column_offset = load_channels(column_bias, channel, inside, HAS_BIAS)
    on_map = columns_on_map(x, inside, width, BEFORE, RUN + K - 1)
    offset = row_offset
    if NORMED:
        offset = tl.load(shift + image) * load_channels(sums, channel, inside, True)
        offset += load_channels(bias, channel, inside, True)
    offsets = ()
    for r in tl.static_range(RUN):
        start = tl.zeros([BLOCK_X, BLOCK_C], tl.float32) + row_offset
        if NORMED:
            for k in tl.static_range(K):
                start += tl.where(on_map[r + k], row_taps[k] * offset, 0.0)
        offsets = offsets + (start,)
    if NORMED:
        scaled = ()
        for k in tl.static_range(K):
            scaled = scaled + (row_taps[k] * tl.load(scale + image),)
        row_taps = scaled
    at = (image.to(tl.int64) * height + top - BEFORE) * width * channels
    at += x[:, None] * channels + channel[None, :]
    row_step = width * channels
    pixels, written = maps + at, out + (at - BEFORE * row_step)
    window = zeros(x, channel, RUN * (K - 1))
    # Load one row ahead, so that arithmetic does not wait for memory.
    ahead = load_row(pixels, on_map, (top >= BEFORE) & (top - BEFORE < height), channels, BEFORE)
    for step in tl.range(0, BLOCK_H + K - 1, loop_unroll_factor=ROWS):
        y = top + step - BEFORE
        pixels += row_step
        current = ahead
        ahead = load_row(pixels, on_map, (y >= -1) & (y + 1 < height), channels, BEFORE)
        filtered = convolve_row(current, on_map, (y >= 0) & (y < height), row_taps, offsets)
        y -= BEFORE  # the window's middle
        moved = ()
        for r in tl.static_range(RUN):
            total = column_offset + column_taps[K - 1] * filtered[r]
            for k in tl.static_range(K - 1):
                total += column_taps[k] * window[r * (K - 1) + k]
            kept = on_map[r + BEFORE] & (y >= top) & (y < bottom)
            tl.store(written + r * channels, total.to(out.dtype.element_ty), kept)
            moved = moved + (window[r * (K - 1) : (r + 1) * (K - 1)] + (filtered[r],))[1:]
        window = moved
        written += row_step


def _launch(
    x: Tensor,
    row: Tensor,
    row_bias: Tensor | None,
    column: Tensor,
    column_bias: Tensor | None,
    norm: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    flip: bool = False,
) -> Tensor:
    batch, channels, height, width = x.shape
    parts = cut(x)
    out = torch.empty_like(x)
    row, column = row.contiguous(), column.contiguous()
    wrap_triton(_separable_kernel)[(batch * parts.bands * parts.strips, parts.blocks)](
        x,
        row,
        row if row_bias is None else row_bias,
        column,
        column if column_bias is None else column_bias,
        *(norm or (row, row, row, row)),
        out,
        height,
        width,
        channels,
        K=row.shape[-1],
        FLIP=flip,
        HAS_BIAS=row_bias is not None,
        NORMED=norm is not None,
        BLOCK_H=parts.rows,
        RUN=RUN,
        ROWS=ROWS,
        BLOCK_X=BLOCK_X,
        BLOCK_C=parts.channels,
    )
    return out


@operator("spanets::separable_conv")
def _separable(
    x: Tensor, row: Tensor, row_bias: Tensor, column: Tensor, column_bias: Tensor
) -> Tensor:
    return _launch(x, row, row_bias, column, column_bias)


@operator("spanets::separable_conv_transposed")
def _transposed(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    # The transpose is a convolution with reversed taps; row and column filters commute.
    return _launch(x, row, None, column, None, flip=True)


@operator("spanets::normed_separable_conv")
def _normed(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    sums: Tensor,
    bias: Tensor,
    row: Tensor,
    row_bias: Tensor,
    column: Tensor,
    column_bias: Tensor,
) -> Tensor:
    return _launch(x, row, row_bias, column, column_bias, (scale, shift, sums, bias))


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    x, row, row_bias, column, column_bias = ctx.saved_tensors
    x, grad = lay_out(x), lay_out(grad)
    rows, of_row_bias, columns, of_column_bias = tap_gradients(x, grad, row, row_bias, column)
    return (
        _transposed(grad, row, column),
        rows.mT.reshape(row.shape).to(row.dtype),
        of_row_bias.to(row_bias.dtype),
        columns.mT.reshape(column.shape).to(column.dtype),
        of_column_bias.to(column_bias.dtype),
    )


_separable.register_autograd(_backward, setup_context=_setup)


def separable_conv(
    x: Tensor, row: Tensor, row_bias: Tensor, column: Tensor, column_bias: Tensor
) -> Tensor:
    """Convolves each channel with a row of taps, then with a column, zeros around the map.

    Args:
        x: (B, C, H, W), channels last; `is_supported` must be true.
        row: Row taps (C, 1, 1, K), K odd and at most `MAX_TAPS`.
        row_bias: Row biases (C,).
        column: Column taps (C, 1, K, 1).
        column_bias: Column biases (C,).

    Returns:
        (B, C, H, W), channels last.
    """
    with device_of(x):
        return _separable(x, row, row_bias, column, column_bias)


def normed_separable_conv(
    x: Tensor,
    norm: Normalizer,
    bias: Tensor,
    row: Tensor,
    row_bias: Tensor,
    column: Tensor,
    column_bias: Tensor,
) -> Tensor:
    """Computes `separable_conv(s x + t w̄ + b)`: applies the delayed norm and bias. No gradients.

    Args:
        x: `W z`, (B, C, H, W), channels last; `is_supported` must be true.
        norm: s, t and w̄; see `normalizer`.
        bias: b, (C,).
        row, row_bias, column, column_bias: See `separable_conv`.

    Returns:
        (B, C, H, W), channels last.
    """
    with device_of(x):
        return _normed(x, *norm, bias, row, row_bias, column, column_bias)
