"""Gradients of the taps and biases of a separable convolution.

Let f be the row filter's output and g the gradient of the column filter's output. Column tap k has
the gradient `Σ g(y) f(y + k - K//2)`, row tap k the same sum over the gradient of f and the maps.
The kernels recompute f from the maps, and the gradient of f as g convolved with the reversed column
taps.

Shape legend: `B` images, `C` channels, `H W` map size, `K` taps.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import divide_up, jit, operator, tl, with_warps
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


@jit
def _store_sums(sums, totals, bias_total, program, channel, channels):
    """Sums a program's totals over its columns and stores them, (K + 1, C) per program."""
    out = sums + (program * (len(totals) + 1) * channels + channel)
    for k in tl.static_range(len(totals)):
        tl.store(out + k * channels, tl.sum(totals[k], 0), channel < channels)
    tl.store(out + len(totals) * channels, tl.sum(bias_total, 0), channel < channels)


@with_warps(2)  # the fastest on an H200
@jit
def _column_kernel(
    maps,
    grad,
    row,
    row_bias,
    sums,
    images,
    height,
    width,
    channels,
    turns,
    K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moves a window of the row filter's output down a strip of a band of some images."""
    BEFORE: tl.constexpr = K // 2
    program = tl.program_id(0)
    x, top, first = place(program, height, width, BLOCK_H, RUN, BLOCK_X)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    taps = load_taps(row, channel, inside, K, False)
    offset = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    offset += load_channels(row_bias, channel, inside, True)
    offsets = ()
    for _ in tl.static_range(RUN):
        offsets = offsets + (offset,)
    on_map = columns_on_map(x, inside, width, BEFORE, RUN + K - 1)
    on_run = on_map[BEFORE : BEFORE + RUN]
    totals = zeros(x, channel, K)
    bias_total = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    row_step = width * channels
    for turn in range(turns):
        index = first * turns + turn
        limit = tl.where(index < images, height, 0)  # past the last image, mask everything
        bottom = tl.minimum(top + BLOCK_H, limit)
        at = (index.to(tl.int64) * height + top - BEFORE) * width * channels
        at += x[:, None] * channels + channel[None, :]
        pixels, middle = maps + at, grad + (at - BEFORE * row_step)
        window = zeros(x, channel, RUN * (K - 1))
        for step in tl.range(0, BLOCK_H + K - 1, loop_unroll_factor=ROWS):
            y = top + step - BEFORE
            on_row = (y >= 0) & (y < limit)
            current = load_row(pixels, on_map, on_row, channels, BEFORE)
            filtered = convolve_row(current, on_map, on_row, taps, offsets)
            y -= BEFORE  # the window's middle
            arrived = load_row(middle, on_run, (y >= top) & (y < bottom), channels, 0)
            moved = ()
            for r in tl.static_range(RUN):
                g = arrived[r].to(tl.float32)
                bias_total += g
                values = window[r * (K - 1) : (r + 1) * (K - 1)] + (filtered[r],)
                added = ()
                for k in tl.static_range(K):
                    added = added + (totals[k] + g * values[k],)
                totals = added
                moved = moved + values[1:]
            window = moved
            pixels += row_step
            middle += row_step
    _store_sums(sums, totals, bias_total, program, channel, channels)


@with_warps(2)
@jit
def _row_kernel(
    maps,
    grad,
    column,
    sums,
    images,
    height,
    width,
    channels,
    turns,
    K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moves a window of gradients down a strip of a band of some images."""
    BEFORE: tl.constexpr = K // 2
    program = tl.program_id(0)
    x, top, first = place(program, height, width, BLOCK_H, RUN, BLOCK_X)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    taps = load_taps(column, channel, inside, K, True)
    on_map = columns_on_map(x, inside, width, BEFORE, RUN + K - 1)
    on_run = on_map[BEFORE : BEFORE + RUN]
    totals = zeros(x, channel, K)
    bias_total = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    row_step = width * channels
    for turn in range(turns):
        index = first * turns + turn
        limit = tl.where(index < images, height, 0)  # past the last image, mask everything
        bottom = tl.minimum(top + BLOCK_H, limit)
        at = (index.to(tl.int64) * height + top - BEFORE) * width * channels
        at += x[:, None] * channels + channel[None, :]
        below, pixels = grad + at, maps + (at - BEFORE * row_step)
        window = zeros(x, channel, RUN * (K - 1))
        for step in tl.range(0, BLOCK_H + K - 1, loop_unroll_factor=ROWS):
            y = top + step - BEFORE
            arrived = load_row(below, on_run, (y >= 0) & (y < limit), channels, 0)
            y -= BEFORE  # the window's middle
            on_row = (y >= top) & (y < bottom)
            current = load_row(pixels, on_map, on_row, channels, BEFORE)
            moved = ()
            for r in tl.static_range(RUN):
                values = window[r * (K - 1) : (r + 1) * (K - 1)] + (arrived[r].to(tl.float32),)
                g = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
                for k in tl.static_range(K):
                    g += taps[k] * values[k]
                g = tl.where(on_run[r] & on_row, g, 0.0)
                bias_total += g
                added = ()
                for k in tl.static_range(K):
                    added = added + (totals[k] + g * current[r + k].to(tl.float32),)
                totals = added
                moved = moved + values[1:]
            window = moved
            below += row_step
            pixels += row_step
    _store_sums(sums, totals, bias_total, program, channel, channels)


def _turns(programs: int) -> int:
    """Returns how many images a program sums over, so that about a thousand programs remain.

    It has no branch: compilers would make one graph for each outcome.
    """
    turns: int = torch.sym_max(1, torch.sym_min(8, programs // 1024))
    return turns


@operator("spanets::separable_conv_tap_gradients")
def _tap_gradients(
    x: Tensor, grad: Tensor, row: Tensor, row_bias: Tensor, column: Tensor
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    taps = row.shape[-1]
    parts = cut(x)
    tiles = parts.strips * parts.bands
    turns = _turns(batch * tiles * parts.blocks)
    programs = tiles * divide_up(batch, turns)
    row_sums = x.new_empty(programs, taps + 1, channels, dtype=torch.float32)
    column_sums = torch.empty_like(row_sums)
    row, column = row.contiguous(), column.contiguous()
    sizes = (batch, height, width, channels, turns)
    blocks = {
        "K": taps,
        "BLOCK_H": parts.rows,
        "RUN": RUN,
        "ROWS": ROWS,
        "BLOCK_X": BLOCK_X,
        "BLOCK_C": parts.channels,
    }
    grid = (programs, parts.blocks)
    wrap_triton(_row_kernel)[grid](x, grad, column, row_sums, *sizes, **blocks)
    wrap_triton(_column_kernel)[grid](x, grad, row, row_bias, column_sums, *sizes, **blocks)
    return row_sums.sum(0), column_sums.sum(0)


def tap_gradients(
    x: Tensor, grad: Tensor, row: Tensor, row_bias: Tensor, column: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of row taps (K, C), row biases (C,), column taps and column biases.

    Args:
        x: Input maps of the convolution, (B, C, H, W), channels last.
        grad: Gradient of the output, (B, C, H, W), channels last.
        row: Row taps (C, 1, 1, K).
        row_bias: Row biases (C,).
        column: Column taps (C, 1, K, 1).
    """
    rows, columns = _tap_gradients(x, grad, row, row_bias, column)
    return rows[:-1], rows[-1], columns[:-1], columns[-1]
