"""The weights of the low-frequency basis functions, for inference: maps times a thin matrix.

Shape legend: `B` images, `C` channels, `H W` map size, `K` basis functions.
"""

from torch import Tensor
from torch.library import wrap_triton

from spanets.kernels.availability import device_of, divide_up, jit, operator, tl
from spanets.kernels.modulation import mode_block

# Pixels that are read at a time, and channels of a tile: the fastest on an H200.
_BLOCK_P, _BLOCK_C = 128, 64


@jit
def _projection_kernel(
    maps,
    waves,
    gain,
    out,
    positions,
    channels,
    modes,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Some channels of an image; a library's product of so few rows takes twice as long."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mode = tl.arange(0, BLOCK_K)
    inside, used = channel < channels, mode < modes
    total = tl.zeros([BLOCK_K, BLOCK_C], tl.float32)
    for first in range(0, positions, BLOCK_P):
        pixel = first + tl.arange(0, BLOCK_P)
        on_map = pixel < positions
        basis = waves + pixel[None, :] * modes + mode[:, None]
        basis = tl.load(basis, used[:, None] & on_map[None, :], 0.0)  # K P
        at = (image * positions + pixel[:, None]) * channels + channel[None, :]
        x = tl.load(maps + at, on_map[:, None] & inside[None, :], 0.0)  # P C
        total = tl.dot(basis, x, total)
    kept = used[:, None] & inside[None, :]
    at = gain + channel[None, :] * modes + mode[:, None]
    total *= tl.load(at, kept, 0.0).to(tl.float32)
    at = out + (image * modes + mode[:, None]) * channels + channel[None, :]
    tl.store(at, total.to(out.dtype.element_ty), kept)


@operator("spanets::project")
def _project(x: Tensor, waves: Tensor, gain: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    modes = waves.shape[1]
    out = x.new_empty(batch, modes, channels)
    wrap_triton(_projection_kernel)[(batch, divide_up(channels, _BLOCK_C))](
        x,
        waves,
        gain,
        out,
        height * width,
        channels,
        modes,
        BLOCK_P=_BLOCK_P,
        BLOCK_C=_BLOCK_C,
        BLOCK_K=mode_block(modes),
    )
    return out


def project(x: Tensor, waves: Tensor, gain: Tensor) -> Tensor:
    """Computes `gᵀ ⊙ (Φᵀ x)`, without gradients.

    Args:
        x: (B, C, H, W), channels last, in half precision, of those that `takes` accepts.
        waves: Φ, (H·W, K), in the type of x; K at most `MAX_MODES`.
        gain: g, (C, K), contiguous.

    Returns:
        (B, K, C).
    """
    with device_of(x):
        return _project(x, waves, gain)
