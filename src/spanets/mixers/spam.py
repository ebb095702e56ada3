"""SPAM, the token mixer of SPANet: a local convolution times its spectrally pooled context.

Shape legend: `B` images, `C` channels, `H W` map size, `K` taps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spanets.mixers.checks import check_choice
from spanets.mixers.context import BALANCES, HadamardContext, SpectralContext
from spanets.spectral import RING

CONTEXTS = {"sum": SpectralContext, "hadamard": HadamardContext}


class SPAM(nn.Module):
    """Spectral pooling aggregation modulation, SPANet's token mixer (Eq. 19, Figure 3).

    `x̂ = DW_{K×1}(DW_{1×K}(Linear_in(x)))`, `y = Linear_out(x̂ ⊙ context(x̂))`, without activation
    functions. NCHW in and out, any size.

    Args:
        dim: Channels C.
        kernel_size: Kernel size K of the two depth-wise convolutions, odd.
        aggregation: How the context combines its gates: "sum" or "hadamard" (Table 5).
        radius, balances, ring, spectral_filter, method, learn_balance, learn_ring: See
            `SpectralContext`.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        radius: float = 2,
        balances: Sequence[float] = BALANCES,
        ring: float | None = RING,
        aggregation: str = "sum",
        spectral_filter: bool = True,
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
        pad = kernel_size // 2
        self.proj_in = nn.Conv2d(dim, dim, 1, **factory)
        self.conv_row = nn.Conv2d(
            dim, dim, (1, kernel_size), padding=(0, pad), groups=dim, **factory
        )
        self.conv_column = nn.Conv2d(
            dim, dim, (kernel_size, 1), padding=(pad, 0), groups=dim, **factory
        )
        check_choice("aggregation", aggregation, list(CONTEXTS))
        self.context = CONTEXTS[aggregation](
            dim,
            radius,
            balances,
            ring,
            spectral_filter,
            method,
            learn_balance,
            learn_ring,
            **factory,
        )
        self.proj_out = nn.Conv2d(dim, dim, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        x = self.conv_column(self.conv_row(self.proj_in(x)))
        return self.proj_out(x * self.context(x))

    def boundary_layers(self) -> tuple[list[nn.Conv2d], nn.Conv2d]:
        """Returns the 1×1 convolutions that read the input, and the one that writes the output."""
        return [self.proj_in], self.proj_out
