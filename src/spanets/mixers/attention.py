"""Self-attention over the positions of a map, with an optional convolution of the values."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import use_fused_attn
from torch import Tensor, nn

HEAD_DIM = 32


class DotProductAttention(nn.Module):
    """`softmax(q kᵀ / √d) v`, for each head.

    torch's fused form, unless `timm.layers.set_fused_attn(False)` holds when it is built: then the
    weights are computed by a softmax that tools can find, such as timm's `AttentionExtract`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_fused = bool(use_fused_attn())

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends over the tokens of (B, heads, N, d); returns the same shape."""
        if self.is_fused:
            return F.scaled_dot_product_attention(query, key, value)
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)  # B heads N N
        return scores.softmax(-1) @ value


class Attention(nn.Module):
    """Multi-head self-attention of SPANetV2's hybrid variants, without biases.

    `y = Linear(Attention(q, k, v) [+ DW_{7×7}(v)])`. Attention acts as a low-pass filter; the
    depth-wise convolution of the values adds high frequencies back. NCHW in and out.

    Args:
        dim: Channels C, a multiple of `head_dim`.
        head_dim: Channels of one head.
        local_conv: Whether to add the convolution of the values.
        kernel_size: Kernel size of that convolution, odd.

    Raises:
        ValueError: dim is not a multiple of head_dim.
    """

    def __init__(
        self,
        dim: int,
        head_dim: int = HEAD_DIM,
        local_conv: bool = False,
        kernel_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim % head_dim:
            raise ValueError(f"{dim} channels do not split into heads of {head_dim}")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.head_dim = head_dim
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False, **factory)
        self.attn = DotProductAttention()
        self.local_conv = (
            nn.Conv2d(
                dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, bias=False, **factory
            )
            if local_conv
            else None
        )
        self.proj = nn.Conv2d(dim, dim, 1, bias=False, **factory)

    def boundary_layers(self) -> tuple[list[nn.Conv2d], nn.Conv2d]:
        """Returns the 1×1 convolutions that read the input, and the one that writes the output."""
        return [self.qkv], self.proj

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        return self.proj(self.attend(self.qkv(x)))

    def attend(self, qkv: Tensor) -> Tensor:
        """Maps queries, keys and values (B, 3 C, H, W) to the attended values (B, C, H, W)."""
        query, key, value = qkv.chunk(3, 1)
        mixed = self.attn(*map(self._tokens, (query, key, value)))  # B heads HW head_dim
        # Through (B, HW, C), the memory layout of torch's fused attention: channels last, no copy.
        mixed = mixed.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, qkv.shape[-2:])
        return mixed if self.local_conv is None else mixed + self.local_conv(value)

    def _tokens(self, x: Tensor) -> Tensor:
        """Reshapes (B, C, H, W) to (B, heads, HW, head_dim)."""
        return x.flatten(2).unflatten(1, (-1, self.head_dim)).transpose(2, 3)

    def extra_repr(self) -> str:
        """Describes the heads."""
        return f"head_dim={self.head_dim}"
