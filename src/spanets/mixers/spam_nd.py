"""SPAM for maps of one and of three dimensions, such as signals and volumes.

Shape legend: `B` items, `C` channels, `W` or `D H W` map size, `K` taps.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spanets.mixers.context import BALANCES, SpectralPool
from spanets.spectral import RING

CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 3: nn.Conv3d}


class SPAMNd(nn.Module):
    """Spectral pooling aggregation modulation (SPANet, Eq. 19) over `dims` dimensions, 1 or 3.

    `x̂ = DW_1(… DW_n(Linear_in(x)))` with one depth-wise convolution of K taps along each dimension,
    then `y = Linear_out(x̂ ⊙ Σ_i (W_i SPF_{λ_i}(x̂_i) + b_i))`, as in two dimensions. The sum over
    the gates is one convolution of 1 tap.

    Args:
        dim: Channels C.
        kernel_size: Kernel size K along each dimension, odd.
        radius, balances, ring, method, learn_balance, learn_ring: See `SpectralPool`.

    Raises:
        ValueError: even kernel size, unknown choice, radius that is not positive or not finite, or
            dim cannot be split into N gates.
    """

    dims: ClassVar[int]

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        radius: float = 2,
        balances: Sequence[float] = BALANCES,
        ring: float | None = RING,
        method: str = "auto",
        learn_balance: str | None = None,
        learn_ring: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, must be odd")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        conv = CONVOLUTIONS[self.dims]
        options = (radius, balances, ring, method, learn_balance, learn_ring)
        self.proj_in = conv(dim, dim, 1, **factory)
        self.convs = nn.Sequential()
        for axis in reversed(range(self.dims)):  # the last dimension first, as in SPAM
            taps = [kernel_size if i == axis else 1 for i in range(self.dims)]
            pad = [n // 2 for n in taps]
            self.convs.append(conv(dim, dim, taps, padding=pad, groups=dim, **factory))
        self.filter = SpectralPool(dim, *options, **factory, dims=self.dims)
        self.proj_context = conv(dim, dim, 1, **factory)
        self.proj_out = conv(dim, dim, 1, **factory)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises each gate's projection as a convolution from that gate's channels."""
        for weight in self.proj_context.weight.chunk(len(self.filter.balances), 1):
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, W) or (B, C, D, H, W), of any size."""
        x = self.convs(self.proj_in(x))
        return self.proj_out(x * self.proj_context(self.filter(x)))

    def boundary_layers(self) -> tuple[list[nn.Module], nn.Module]:
        """Returns the layers that read the input, and the one that writes the output."""
        return [self.proj_in], self.proj_out


class SPAM1d(SPAMNd):
    """SPAM for signals (B, C, W); for the arguments see `SPAMNd`."""

    dims = 1


class SPAM3d(SPAMNd):
    """SPAM for volumes (B, C, D, H, W); for the arguments see `SPAMNd`."""

    dims = 3
