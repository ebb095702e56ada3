"""Folds scales and offsets into adjacent linear layers, for inference.

`timm.utils.reparameterize_model` calls the `reparameterize` methods that use these functions. The
network's outputs, features and intermediate maps stay the same up to float rounding.
"""

from typing import Any

import torch
from torch import nn

Linear = nn.Conv2d | nn.Linear


@torch.no_grad()
def fold_norm(norm: Any, *readers: Linear) -> None:
    """Moves a norm's scale γ and offset β into all the layers that read its output.

    `W (γ ⊙ x + β) + b = (W diag γ) x + (b + W β)`. Afterwards the norm has neither.

    Args:
        norm: Norm with `weight` (C,) and `bias` (C,), each of which may be None.
        readers: Linear layers or convolutions without groups. With an offset they must be 1×1:
            zero padding would leave the offset out at the borders.
    """
    for layer in readers:
        if norm.bias is not None:
            assert layer.weight[0, 0].numel() == 1, "an offset does not pass through padding"
            _add_bias(layer, layer.weight.flatten(1) @ norm.bias)
        if norm.weight is not None:
            layer.weight.mul_(norm.weight.view(-1, *[1] * (layer.weight.ndim - 2)))
    norm.weight = norm.bias = None


@torch.no_grad()
def fold_scale(scale: Any, layer: Linear) -> nn.Module:
    """Moves a scale per output channel into the layer; returns an identity to replace the scale."""
    if isinstance(scale, nn.Identity):
        return scale
    factor: torch.Tensor = scale.scale
    layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(factor)
    return nn.Identity()


@torch.no_grad()
def fold_star(layer: nn.Conv2d, scale: torch.Tensor, offset: torch.Tensor) -> None:
    """Folds StarReLU into a 1×1 convolution: `W (s r² + o) = (s W) r² + o W 1`."""
    _add_bias(layer, offset * layer.weight.sum((1, 2, 3)))
    layer.weight.mul_(scale)


def _add_bias(layer: Linear, offset: torch.Tensor) -> None:
    total = offset if layer.bias is None else layer.bias + offset
    layer.bias = nn.Parameter(total, requires_grad=layer.weight.requires_grad)
