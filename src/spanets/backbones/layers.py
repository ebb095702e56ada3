"""The layers of a block: MLPs and channel scales, built from torch's and timm's own layers.

Shape legend: `B` images, `C` channels, `H W` map size.
"""

from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models.metaformer import SquaredReLU, StarReLU
from torch import Tensor, nn

from spanets.mixers.folding import fold_star

# Standard deviation of the papers' truncated normal initialisation.
INIT_STD = 0.02


def init_weight(weight: Tensor) -> None:
    """Draws a weight from a normal distribution of deviation `INIT_STD`, truncated at six of them.

    The papers truncate at ±2, a hundred deviations. In float32, rounding makes about one sample in
    10 million infinite, and truncation would set it to ±2. At six deviations it does no harm.
    """
    if weight.is_meta:  # drawing without memory would take half the time of building a network
        return
    trunc_normal_(weight, std=INIT_STD, a=-6 * INIT_STD, b=6 * INIT_STD)


class ChannelScale(nn.Module):
    """A learnt factor for each channel of NCHW maps; `scale` is (C,)."""

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
        ratio: Ratio of the hidden to the embedding dimension.
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
    """SPANetV2's MLP, as in MetaFormer: `W₂ (s relu(W₁ x)² + b)`, 1×1 convolutions without biases.

    The activation is timm's StarReLU; s and b are its two learnt numbers.

    Args:
        dim: Channels C.
        ratio: Ratio of the hidden to the embedding dimension.
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
