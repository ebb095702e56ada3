"""The layers of a block: MLPs and factors of channels, with timm's and torch's own leaves.

Shape legend: `B` images, `C` channels, `H W` map size.
"""

from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models.metaformer import SquaredReLU, StarReLU
from torch import Tensor, nn

from spanets.mixers.folding import fold_star

# Deviation of the weights that the papers draw from a truncated normal distribution.
INIT_STD = 0.02


def init_weight(weight: Tensor) -> None:
    """Draws a weight from the papers' truncated normal distribution, of deviation `INIT_STD`.

    The papers truncate at ±2, a hundred deviations, which in float32 meets nothing but rounding:
    one sample in some 10 million comes out infinite and is set to that bound, so that a few weights
    of a network would start at ±2. At six deviations such a sample is harmless. A weight without
    values, on the meta device, is left alone: to pretend would take half of a network's making.
    """
    if weight.is_meta:
        return
    trunc_normal_(weight, std=INIT_STD, a=-6 * INIT_STD, b=6 * INIT_STD)


class ChannelScale(nn.Module):
    """A learnt factor for each channel of NCHW maps, `scale` (C, 1, 1) as the maps broadcast."""

    def __init__(
        self,
        dim: int,
        init: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.init = init
        self.scale = nn.Parameter(torch.empty(dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets every factor to its initial value."""
        nn.init.constant_(self.scale, self.init)

    def forward(self, x: Tensor) -> Tensor:
        """Scales (B, C, H, W)."""
        return x * self.scale[:, None, None]


class PointwiseMlp(nn.Module):
    """SPANet's MLP: `W₂ GELU(W₁ x + b₁) + b₂`, 1×1 convolutions (section 3.3).

    Args:
        dim: Channels C.
        ratio: Hidden over embedding dimension.
    """

    def __init__(
        self,
        dim: int,
        ratio: float = 4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = int(ratio * dim)
        self.fc1 = nn.Conv2d(dim, hidden, 1, **factory)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        return self.fc2(self.act(self.fc1(x)))


class StarMlp(nn.Module):
    """SPANetV2's MLP, MetaFormer's: `W₂ (s relu(W₁ x)² + b)`, 1×1 convolutions without biases.

    s and b are two learnt numbers, timm's StarReLU.

    Args:
        dim: Channels C.
        ratio: Hidden over embedding dimension.
    """

    def __init__(
        self,
        dim: int,
        ratio: float = 4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = int(ratio * dim)
        self.fc1 = nn.Conv2d(dim, hidden, 1, bias=False, **factory)
        self.act: nn.Module = StarReLU(**factory)
        self.fc2 = nn.Conv2d(hidden, dim, 1, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        return self.fc2(self.act(self.fc1(x)))

    def reparameterize(self) -> None:
        """Moves s and b into the second convolution, for inference."""
        if isinstance(self.act, StarReLU):
            fold_star(self.fc2, self.act.scale, self.act.bias)
            self.act = SquaredReLU()
