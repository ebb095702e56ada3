"""Assigns tiles of pixels to programs, and chooses block sizes.

Shape legend: `H W` map size.
"""

from spanets.kernels.availability import jit, tl


def block_of(count: int) -> int:
    """Returns the smallest block size for `count` values: a power of two, 16 or more."""
    block = 16
    while block < count:
        block *= 2
    return block


@jit
def place_pixels(tile, positions, BLOCK_P: tl.constexpr):
    """Returns a tile's image and pixels; in an image's last tile some exceed H·W positions."""
    blocks = tl.cdiv(positions, BLOCK_P)
    return (tile // blocks).to(tl.int64), tile % blocks * BLOCK_P + tl.arange(0, BLOCK_P)


@jit
def count_pixels(tile, positions, BLOCK_P: tl.constexpr):
    """Returns how many of a tile's pixels lie inside the image."""
    return tl.minimum(positions - tile % tl.cdiv(positions, BLOCK_P) * BLOCK_P, BLOCK_P)
