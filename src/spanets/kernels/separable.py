"""A separable depth-wise convolution in one pass: a row of taps, then a column of taps.

cuDNN's kernels for depth-wise filters of 1×K and K×1 on channels-last maps took 0.65 of
SPANet-small's time on an H200, fifty times what reading and writing the maps takes.

Shape legend: `B` images, `C` channels, `H W` map size, `K` taps.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, jit, operator, tl

MAX_TAPS = 11
"""Longest filter; beyond it the window of rows would not fit into a processor's registers."""

# Positions along a row, and channels, of the tile that a program moves down the map.
_BLOCK_W, _BLOCK_C = 8, 64

# With those, the fastest of the numbers of warps on an H200; unrolling the rows was slower.
_WARPS, _GRADIENT_WARPS = 4, 2


@jit
def _load_taps(weight, channel, inside, K: tl.constexpr, FLIP: tl.constexpr):
    """The K taps of some channels (1, BLOCK_C each), from (C, K)."""
    taps = ()
    for k in tl.static_range(K):
        at = K - 1 - k if FLIP else k
        taps = taps + (tl.load(weight + channel * K + at, inside, 0.0).to(tl.float32)[None, :],)
    return taps


@jit
def _load_bias(bias, channel, inside, HAS_BIAS: tl.constexpr):
    if HAS_BIAS:
        return tl.load(bias + channel, inside, 0.0).to(tl.float32)[None, :]
    return tl.zeros([1, channel.shape[0]], tl.float32)


@jit
def _zeros(x, channel, COUNT: tl.constexpr):
    """COUNT tiles of zeros."""
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.zeros([x.shape[0], channel.shape[0]], tl.float32),)
    return tiles


@jit
def _neighbours(x, inside, width, K: tl.constexpr):
    """Which of the K columns around each x lie on the map."""
    on_map = ()
    for k in tl.static_range(K):
        shifted = x + (k - K // 2)
        on_map = on_map + (((shifted >= 0) & (shifted < width))[:, None] & inside[None, :],)
    return on_map


@jit
def _convolve_row(pixels, on_map, on_row, taps, bias, channels):
    """The row filter's output at the pixels of a row, which is zero, not the bias, off the map."""
    total = tl.zeros([pixels.shape[0], pixels.shape[1]], tl.float32) + bias
    for k in tl.static_range(len(taps)):
        at = pixels + (k - len(taps) // 2) * channels
        total += taps[k] * tl.load(at, on_map[k] & on_row, 0.0).to(tl.float32)
    return tl.where(on_map[len(taps) // 2] & on_row, total, 0.0)


@jit
def _separable_kernel(
    maps,
    row,
    row_bias,
    column,
    column_bias,
    out,
    height,
    width,
    channels,
    K: tl.constexpr,
    FLIP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moves a window of K rows of the row filter's output down a strip of an image."""
    strips, bands = tl.cdiv(width, BLOCK_W), tl.cdiv(height, BLOCK_H)
    tile = tl.program_id(0)
    x = tile % strips * BLOCK_W + tl.arange(0, BLOCK_W)
    top = tile // strips % bands * BLOCK_H
    image = (tile // (strips * bands)).to(tl.int64) * height * width * channels
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    row_taps = _load_taps(row, channel, inside, K, FLIP)
    column_taps = _load_taps(column, channel, inside, K, FLIP)
    row_offset = _load_bias(row_bias, channel, inside, HAS_BIAS)
    column_offset = _load_bias(column_bias, channel, inside, HAS_BIAS)
    on_map = _neighbours(x, inside, width, K)
    row_step = width * channels
    at = image + ((top - K // 2) * width + x[:, None]) * channels + channel[None, :]
    pixels, written = maps + at, out + (at - K // 2 * row_step)
    window = _zeros(x, channel, K)
    for step in range(BLOCK_H + K - 1):
        y = top + step - K // 2
        on_row = (y >= 0) & (y < height)
        filtered = _convolve_row(pixels, on_map, on_row, row_taps, row_offset, channels)
        window = window[1:] + (filtered,)
        total = tl.zeros([BLOCK_W, BLOCK_C], tl.float32) + column_offset
        for k in tl.static_range(K):
            total += column_taps[k] * window[k]
        y -= K // 2  # the window's middle
        kept = on_map[K // 2] & (y >= top) & (y < height)
        tl.store(written, total.to(out.dtype.element_ty), kept)
        pixels += row_step
        written += row_step


@jit
def _weight_gradient_kernel(
    maps,
    grad,
    row,
    row_bias,
    column,
    sums,
    images,
    height,
    width,
    channels,
    K: tl.constexpr,
    TURNS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums each tap's gradient over a strip of a band of TURNS images: (2 K + 2, C) a program.

    Two windows of K rows move together: the row filter's output, and the gradient of the column
    filter's. Both middles lie on the row whose gradients are added.
    """
    strips, bands = tl.cdiv(width, BLOCK_W), tl.cdiv(height, BLOCK_H)
    program = tl.program_id(0)
    x = program % strips * BLOCK_W + tl.arange(0, BLOCK_W)
    top = program // strips % bands * BLOCK_H
    first = program // (strips * bands) * TURNS
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    row_taps = _load_taps(row, channel, inside, K, False)
    column_taps = _load_taps(column, channel, inside, K, False)
    row_offset = _load_bias(row_bias, channel, inside, True)
    row_sums, column_sums = _zeros(x, channel, K), _zeros(x, channel, K)
    row_bias_sum = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
    column_bias_sum = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
    on_map = _neighbours(x, inside, width, K)
    row_step = width * channels
    for turn in range(TURNS):
        image = (first + turn).to(tl.int64) * height * width * channels
        rows = tl.where(first + turn < images, height, 0)  # past the last image all is masked
        at = ((top - K // 2) * width + x[:, None]) * channels + channel[None, :]
        window, grads = _zeros(x, channel, K), _zeros(x, channel, K)
        for step in range(BLOCK_H + K - 1):
            y = top + step - K // 2
            on_row = (y >= 0) & (y < rows)
            filtered = _convolve_row(
                maps + image + at, on_map, on_row, row_taps, row_offset, channels
            )
            window = window[1:] + (filtered,)
            arrived = tl.load(grad + image + at, on_map[K // 2] & on_row, 0.0).to(tl.float32)
            grads = grads[1:] + (arrived,)
            y -= K // 2  # the windows' middle
            on_row = (y >= top) & (y < rows)
            middle = tl.where(on_row, grads[K // 2], 0.0)
            of_row = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
            of_columns, of_rows = (), ()
            for k in tl.static_range(K):
                of_columns = of_columns + (column_sums[k] + middle * window[k],)
                of_row += column_taps[k] * grads[K - 1 - k]
            of_row = tl.where(on_map[K // 2] & on_row, of_row, 0.0)
            for k in tl.static_range(K):
                neighbour = at + ((k - K // 2) * channels - K // 2 * row_step)
                value = tl.load(maps + image + neighbour, on_map[k] & on_row, 0.0).to(tl.float32)
                of_rows = of_rows + (row_sums[k] + of_row * value,)
            row_sums, column_sums = of_rows, of_columns
            row_bias_sum += of_row
            column_bias_sum += middle
            at += row_step
    out = sums + (program * (2 * K + 2) * channels + channel)
    for k in tl.static_range(K):
        tl.store(out + k * channels, tl.sum(row_sums[k], 0), inside)
        tl.store(out + (K + k) * channels, tl.sum(column_sums[k], 0), inside)
    tl.store(out + 2 * K * channels, tl.sum(row_bias_sum, 0), inside)
    tl.store(out + (2 * K + 1) * channels, tl.sum(column_bias_sum, 0), inside)


def _bands(batch: int, height: int) -> tuple[int, int]:
    """Returns how many bands maps are cut into, and how many rows of one a program computes.

    Few images leave processors idle unless each is cut into several, at the price of reading the
    rows around each band once more.
    """
    most = 28 if batch >= 32 else 7
    rows = _divide(height, _divide(height, most))
    block = next(block for block in (7, 14, 28) if block >= rows)
    return _divide(height, block), block


def _channel_block(channels: int) -> int:
    return _BLOCK_C if channels % _BLOCK_C == 0 else _BLOCK_C // 2


def _divide(a: int, b: int) -> int:
    return (a + b - 1) // b


@operator("spanets::separable_conv")
def _separable(
    x: Tensor,
    row: Tensor,
    row_bias: Tensor | None,
    column: Tensor,
    column_bias: Tensor | None,
    flip: bool,
) -> Tensor:
    batch, channels, height, width = x.shape
    bands, block_h = _bands(batch, height)
    block_c = _channel_block(channels)
    out = torch.empty_like(x)
    row, column = row.contiguous(), column.contiguous()
    grid = (batch * bands * _divide(width, _BLOCK_W), _divide(channels, block_c))
    wrap_triton(_separable_kernel)[grid](
        x,
        row,
        row if row_bias is None else row_bias,
        column,
        column if column_bias is None else column_bias,
        out,
        height,
        width,
        channels,
        K=row.shape[-1],
        FLIP=flip,
        HAS_BIAS=row_bias is not None,
        BLOCK_H=block_h,
        BLOCK_W=_BLOCK_W,
        BLOCK_C=block_c,
        num_warps=_WARPS,
    )
    return out


@operator("spanets::separable_conv_weight_gradient")
def _weight_gradient(
    x: Tensor, grad: Tensor, row: Tensor, row_bias: Tensor, column: Tensor
) -> Tensor:
    """Returns the sums of gradients: (2 K + 2, C), rows, columns and both biases."""
    batch, channels, height, width = x.shape
    taps = row.shape[-1]
    bands, block_h = _bands(batch, height)
    # Twice the windows of the convolution itself, and as many sums.
    block_c = _channel_block(channels) // 2
    strips, blocks = _divide(width, _BLOCK_W) * bands, _divide(channels, block_c)
    turns = next(t for t in (8, 4, 2, 1) if t == 1 or batch * strips * blocks >= 1024 * t)
    programs = strips * _divide(batch, turns)
    row, column = row.contiguous(), column.contiguous()
    sums = x.new_empty(programs, 2 * taps + 2, channels, dtype=torch.float32)
    wrap_triton(_weight_gradient_kernel)[(programs, blocks)](
        x,
        grad,
        row,
        row_bias,
        column,
        sums,
        batch,
        height,
        width,
        channels,
        K=taps,
        TURNS=turns,
        BLOCK_H=block_h,
        BLOCK_W=_BLOCK_W,
        BLOCK_C=block_c,
        num_warps=_GRADIENT_WARPS,
    )
    return sums.sum(0)


def _setup(ctx, inputs, output) -> None:
    x, row, row_bias, column, column_bias, flip = inputs
    assert not flip
    assert row_bias is not None
    assert column_bias is not None
    ctx.save_for_backward(x, row, row_bias, column, column_bias)


def _backward(ctx, grad):
    x, row, row_bias, column, column_bias = ctx.saved_tensors
    grad = grad.contiguous(memory_format=torch.channels_last)
    # The transpose of a convolution is one with its taps in reverse; rows and columns commute.
    of_x = _separable(grad, row, None, column, None, True)
    taps = row.shape[-1]
    sums = _weight_gradient(x, grad, row, row_bias, column)
    rows, columns, biases = sums.split([taps, taps, 2])
    return (
        of_x,
        rows.mT.reshape(row.shape).to(row.dtype),
        biases[0].to(row_bias.dtype),
        columns.mT.reshape(column.shape).to(column.dtype),
        biases[1].to(column_bias.dtype),
        None,
    )


_separable.register_autograd(_backward, setup_context=_setup)


def separable_conv(
    x: Tensor, row: Tensor, row_bias: Tensor, column: Tensor, column_bias: Tensor
) -> Tensor:
    """Convolves each channel with a row of taps, then with a column, zeros around the map.

    Args:
        x: (B, C, H, W), channels last, of those that `takes` accepts.
        row: (C, 1, 1, K), K odd and at most `MAX_TAPS`.
        row_bias: (C,).
        column: (C, 1, K, 1).
        column_bias: (C,).

    Returns:
        (B, C, H, W), channels last.
    """
    with device_of(x):
        return _separable(x, row, row_bias, column, column_bias, False)
