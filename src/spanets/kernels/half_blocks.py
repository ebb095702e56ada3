"""Halves of a SPANet block in half precision on a GPU, for inference, in as few passes as possible.

Neither half writes the output of its norm to memory. `fused.FusedBlock` checks that its layers
are unmodified before it calls these functions.

Shape legend: `B` images, `C` channels, `H W` map size.
"""

from typing import Any

import torch
from timm.layers import GroupNorm1
from torch import Tensor, nn

from spanets import kernels
from spanets.kernels.forms import call, low_frequencies, modulate, pointwise_conv


def add_spam(
    x: Tensor, norm: GroupNorm1, mixer: Any, factor: Tensor | None = None
) -> tuple[Tensor, kernels.Moments]:
    """Computes `f ⊙ x + mixer(norm(x))` without storing `norm(x)`.

    With few channels, one kernel computes the second half of the mixer and the sum.

    Args:
        x: Maps (B, C, H, W), in half precision on a GPU.
        norm: Norm before the mixer.
        mixer: A `FusedSPAM`.
        factor: f, (C,); None means 1.

    Returns:
        The sum and its moments.
    """
    room = headroom(x)
    weight, bias = folded(norm, mixer.proj_in, x.dtype, room)
    moments = kernels.measure(x)
    normed = kernels.normalizer(moments, x.shape[2] * x.shape[3], weight, norm.eps, room)
    row, column, last = mixer.conv_row, mixer.conv_column, mixer.proj_out
    maps = pointwise_conv(x, weight[:, :, None, None], None)
    maps = kernels.normed_separable_conv(
        maps, normed, bias, row.weight, row.bias, column.weight, column.bias
    )
    arguments = mixer.context.low_rank(maps)
    if factor is None and x.shape[1] <= kernels.MAX_CHANNELS:
        low_weight, high_weight, high_bias, radius, gain, closed = arguments
        basis, low = low_frequencies(maps, low_weight, radius, gain, closed)
        high_weight, weight = high_weight.to(x.dtype), last.weight.flatten(1).to(x.dtype)
        return kernels.add_modulated(maps, x, basis, low, high_weight, high_bias, weight, last.bias)
    return kernels.add_and_measure(x, factor, call(last, modulate(maps, *arguments)))


def add_mlp(
    x: Tensor,
    norm: GroupNorm1,
    mlp: Any,
    factor: Tensor | None = None,
    moments: kernels.Moments | None = None,
) -> Tensor:
    """Computes `f ⊙ x + mlp(norm(x))` without storing `norm(x)`.

    With few channels, the hidden maps are not stored either.

    Args:
        x: Maps (B, C, H, W), in half precision on a GPU.
        norm: Norm before the MLP.
        mlp: A `FusedMlp`.
        factor: f, (C,); None means 1.
        moments: Moments of x; None measures them.
    """
    narrow = factor is None and x.shape[1] <= kernels.MAX_CHANNELS
    room = 1.0 if narrow else headroom(x)
    weight, bias = folded(norm, mlp.fc1, x.dtype, room)
    if moments is None:
        moments = kernels.measure(x)
    normed = kernels.normalizer(moments, x.shape[2] * x.shape[3], weight, norm.eps, room)
    if narrow:
        last = mlp.fc2.weight.flatten(1).to(x.dtype)
        return kernels.add_mlp(x, normed.scale, normed.shift, weight, bias, last, mlp.fc2.bias)
    hidden = pointwise_conv(x, weight[:, :, None, None], None)
    branch = call(mlp.fc2, kernels.normed_gelu(hidden, normed, bias))
    return kernels.add_and_measure(x, factor, branch)[0]


def headroom(x: Tensor) -> float:
    """Returns the divisor of weights that multiply x before x is normalised.

    It avoids overflow. float16 ends at 65,504, and a product overflows when the maps of the
    residual stream reach a tenth of that. A power of two rounds only values close to zero.
    """
    return 32.0 if x.dtype == torch.float16 else 1.0


def folded(
    norm: GroupNorm1, layer: nn.Conv2d, dtype: torch.dtype, room: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns weight (D, C) and bias (D,) of a layer that has taken in the norm's γ and β.

    The weight is divided by `room`; see `headroom`.
    """
    weight, bias = layer.weight.flatten(1), layer.bias
    assert bias is not None
    if norm.bias is not None:
        bias = bias + (weight * norm.bias).sum(1)
    if norm.weight is not None:
        weight = weight * norm.weight
    if room != 1:
        weight = weight / room
    return weight.to(dtype), bias
