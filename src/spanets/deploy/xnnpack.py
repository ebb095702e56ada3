"""Norms, products and attention, written in operations that XNNPACK has.

ExecuTorch would run the others itself, and divide the network into parts. XNNPACK averages maps
over pixels only, so a 1×1 convolution averages over channels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _channel_mean(x: Tensor) -> Tensor:
    """Returns the means (B, 1, H, W) over the channels of maps (B, C, H, W)."""
    channels = x.shape[1]
    return aten.conv2d(x, torch.full((1, channels, 1, 1), 1 / channels, dtype=x.dtype))


def _pixel_mean(x: Tensor) -> Tensor:
    """Returns the means (B, 1, 1, 1) over channels and pixels of maps (B, C, H, W)."""
    return _channel_mean(x.mean((2, 3), keepdim=True))


def _normalise(
    x: Tensor,
    mean: Callable[[Tensor], Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Returns w (x - mean) / √(variance + ε) + b for maps (B, C, H, W)."""
    centred = x - mean(x)
    x = centred * torch.rsqrt(mean(centred * centred) + eps)
    if weight is not None:
        x = x * weight.view(-1, 1, 1)
    return x if bias is None else x + bias.view(-1, 1, 1)


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Normalises maps (B, C, H, W) over channels and pixels; other norms stay as they are."""
    if groups != 1 or x.ndim != 4:
        return NotImplemented
    return _normalise(x, _pixel_mean, weight, bias, eps)


def layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """Normalises vectors (B, C) or maps (B, H, W, C) over channels; others stay as they are."""
    if len(shape) != 1 or x.ndim not in (2, 4):
        return NotImplemented
    if x.ndim == 2:
        x = x.view(*x.shape, 1, 1)
        return _normalise(x, _channel_mean, weight, bias, eps).flatten(1)
    x = x.permute(0, 3, 1, 2)
    return _normalise(x, _channel_mean, weight, bias, eps).permute(0, 2, 3, 1)


def matmul(a: Tensor, b: Tensor) -> Any:
    """Multiplies matrices; one matrix with many is one product, where torch repeats the matrix."""
    if a.ndim < 2 or b.ndim < 2:
        return NotImplemented
    if b.ndim == 2:
        return aten.mm(a.reshape(-1, a.shape[-1]), b).view(*a.shape[:-1], b.shape[-1])
    if a.ndim == 2:
        return matmul(b.mT, a.mT).mT
    outer = a.shape[:-2]
    if outer != b.shape[:-2]:
        return NotImplemented
    found = aten.bmm(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]))
    return found.view(*outer, *found.shape[-2:])


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Computes softmax(q kᵀ / √d) v; attention with a mask stays as it is."""
    if mask is not None or dropout or is_causal or enable_gqa:
        return NotImplemented
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return (query * scale @ key.mT).softmax(-1) @ value


def split(x: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    """Splits a tensor into slices."""
    return [x.narrow(dim, i, min(size, x.shape[dim] - i)) for i in range(0, x.shape[dim], size)]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.group_norm.default: group_norm,
    aten.layer_norm.default: layer_norm,
    aten.matmul.default: matmul,
    aten.scaled_dot_product_attention.default: attention,
    aten.split.Tensor: split,
}
"""How these operators are written; for `spanets.deploy.constants.fold_constants`."""
