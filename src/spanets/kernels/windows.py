"""Parts of the kernels that move a window of rows down maps: loading taps and rows, and tiling.

Shape legend: `C` channels, `K` taps.
"""

from typing import NamedTuple

from torch import Tensor

from spanets.kernels.availability import divide_up, jit, tl

# A thread computes RUN neighbours along a row, which share most of their input pixels. The loop
# over ROWS rows is unrolled, which saves moving the window.
RUN, ROWS = 2, 2
BLOCK_X, BLOCK_C = 4, 64


@jit
def place(program, height, width, BLOCK_H: tl.constexpr, RUN: tl.constexpr, BLOCK_X: tl.constexpr):
    """Returns the first column of each run of a program's strip, its top row, and its image."""
    strips, bands = tl.cdiv(width, BLOCK_X * RUN), tl.cdiv(height, BLOCK_H)
    x = (program % strips * BLOCK_X + tl.arange(0, BLOCK_X)) * RUN
    return x, program // strips % bands * BLOCK_H, program // (strips * bands)


@jit
def load_taps(weight, channel, inside, K: tl.constexpr, FLIP: tl.constexpr):
    """Loads the K taps of some channels, (1, BLOCK_C) each, from (C, K)."""
    taps = ()
    for k in tl.static_range(K):
        at = K - 1 - k if FLIP else k
        taps = taps + (tl.load(weight + channel * K + at, inside, 0.0).to(tl.float32)[None, :],)
    return taps


@jit
def load_channels(values, channel, inside, EXISTS: tl.constexpr):
    """Loads one value per channel, (1, BLOCK_C); zeros unless EXISTS."""
    if EXISTS:
        return tl.load(values + channel, inside, 0.0).to(tl.float32)[None, :]
    return tl.zeros([1, channel.shape[0]], tl.float32)


@jit
def zeros(x, channel, COUNT: tl.constexpr):
    """Returns COUNT tiles of zeros."""
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.zeros([x.shape[0], channel.shape[0]], tl.float32),)
    return tiles


@jit
def columns_on_map(x, inside, width, BEFORE: tl.constexpr, COUNT: tl.constexpr):
    """Returns which of COUNT columns, from BEFORE columns left of each x, lie on the map."""
    on_map = ()
    for k in tl.static_range(COUNT):
        shifted = x + (k - BEFORE)
        on_map = on_map + (((shifted >= 0) & (shifted < width))[:, None] & inside[None, :],)
    return on_map


@jit
def load_row(pixels, on_map, on_row, channels, BEFORE: tl.constexpr):
    """Loads these columns of one row; zeros outside the map."""
    row = ()
    for k in tl.static_range(len(on_map)):
        at = pixels + (k - BEFORE) * channels
        row = row + (tl.load(at, on_map[k] & on_row, 0.0),)
    return row


@jit
def convolve_row(row, on_map, on_row, taps, total):
    """Adds the row filter's output to the offsets `total`; returns zero outside the map."""
    out = ()
    for r in tl.static_range(len(total)):
        value = total[r]
        for k in tl.static_range(len(taps)):
            value += taps[k] * row[r + k].to(tl.float32)
        out = out + (tl.where(on_map[r + len(taps) // 2] & on_row, value, 0.0),)
    return out


class Cut(NamedTuple):
    """How maps are split into tiles; each program moves down one tile.

    Attributes:
        strips: Number of tiles side by side.
        bands: Number of tiles below each other. With few images, several bands keep all processors
            busy, but the rows around each band are read twice.
        rows: Rows of a band.
        blocks: Number of channel blocks.
        channels: Channels of a block.
    """

    strips: int
    bands: int
    rows: int
    blocks: int
    channels: int


def cut(x: Tensor) -> Cut:
    """Returns the split for maps like x, (B, C, H, W)."""
    batch, channels, height, width = x.shape
    most = 28 if batch >= 32 else 7
    rows = divide_up(height, divide_up(height, most))
    rows = next(block for block in (7, 14, 28) if block >= rows)
    block = BLOCK_C if channels % BLOCK_C == 0 else BLOCK_C // 2
    strips = divide_up(width, BLOCK_X * RUN)
    return Cut(strips, divide_up(height, rows), rows, divide_up(channels, block), block)
