"""A linear layer over pixels and its gradients, for use inside operators.

Shape legend: `B` images, `C` channels in, `D` out, `H W` map size.
"""

import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Maps (B, C, H, W) to (B, D, H, W), both channels last, with weight (D, C) and bias (D,)."""
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def gradient_of_maps(grad: Tensor, weight: Tensor) -> Tensor:
    """Returns the gradient with respect to the input of `linear`, (B, C, H, W), channels last."""
    return (grad.permute(0, 2, 3, 1).contiguous() @ weight).permute(0, 3, 1, 2)


def gradients_of_layer(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of `linear`'s weight, (D, C), and bias, (D,)."""
    rows = grad.permute(0, 2, 3, 1).flatten(0, 2)  # BHW D
    return rows.mT @ x.permute(0, 2, 3, 1).flatten(0, 2), rows.sum(0)
