"""Wavelet convolution (WTConv) with the Haar wavelet.

Shape legend: `B` images, `C` channels, `H W` map size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.backbones.layers import ChannelScale


def haar(x: Tensor) -> Tensor:
    """Transforms each 2×2 patch into its mean and three differences, an orthonormal basis.

    With the patch (a b; c d): `(a+b+c+d, a-b+c-d, a+b-c-d, a-b-c+d) / 2`.

    Args:
        x: Maps (B, C, H, W) with even sides.

    Returns:
        (B, 4 C, H / 2, W / 2); the four bands of a channel are neighbours, the low one first.
    """
    return _mix_bands(F.pixel_unshuffle(x, 2))


def inverse_haar(bands: Tensor) -> Tensor:
    """Inverts `haar`: the matrix of the transform is symmetric and its own inverse."""
    return F.pixel_shuffle(_mix_bands(bands), 2)


def _mix_bands(x: Tensor) -> Tensor:
    rows = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    matrix = torch.tensor(rows, dtype=x.dtype, device=x.device) / 2
    return torch.einsum("ij,bcjhw->bcihw", matrix, x.unflatten(1, (-1, 4))).flatten(1, 2)


class WaveletConv(nn.Module):
    """Adds small depth-wise convolutions of the map's wavelet bands, level by level (WTConv).

    With the low band L_0 = x and the Haar transform T:

        (L_i, D_i) = T L_{i-1},    Y_i = s_i ⊙ (w_i * (L_i, D_i))
        Z_i = T⁻¹ (low of Y_i + Z_{i+1}, details of Y_i),    y = s_0 ⊙ (w_0 * x + b) + Z_1

    Z after the last level is 0. The kernels w_i are depth-wise, so that channels do not mix. NCHW
    in and out, any size: odd sides are padded with zeros, and the padding is cut off.

    Finder, Amoyal, Treister and Freifeld, Wavelet Convolutions for Large Receptive Fields, ECCV
    2024, arXiv 2407.05848.

    Args:
        dim: Channels C.
        kernel_size: Kernel size of every convolution, odd.
        levels: Number of levels.
    """

    def __init__(self, dim: int, kernel_size: int = 5, levels: int = 2) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, must be odd")
        if levels < 1:
            raise ValueError(f"levels is {levels}, must be at least 1")
        self.base = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.base_scale = ChannelScale(dim, 1.0)
        bands = 4 * dim
        self.convs = nn.ModuleList(
            nn.Conv2d(bands, bands, kernel_size, padding=kernel_size // 2, groups=bands, bias=False)
            for _ in range(levels)
        )
        self.scales = nn.ModuleList(ChannelScale(bands, 0.1) for _ in range(levels))

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        return self.base_scale(self.base(x)) + self._levels(x, 0)

    def _levels(self, low: Tensor, level: int) -> Tensor:
        """Returns Z of a level (from 0) and of all coarser ones, for the low band above it."""
        height, width = low.shape[-2:]
        bands = haar(F.pad(low, (0, width % 2, 0, height % 2)))
        out = self.scales[level](self.convs[level](bands))
        if level + 1 < len(self.convs):
            coarser = self._levels(bands[:, ::4], level + 1)  # B C H/2 W/2
            low_only = F.pad(coarser[:, :, None], (0, 0, 0, 0, 0, 3)).flatten(1, 2)
            out = out + low_only
        return inverse_haar(out)[..., :height, :width]
