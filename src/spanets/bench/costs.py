"""Counts parameters and operations of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2, prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spanets.backbones.modes import evaluating


def count_parameters(model: nn.Module, frozen: bool = False) -> int:
    """Returns the number of trainable parameters.

    Args:
        model: Any network.
        frozen: Whether to count frozen parameters as well.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or frozen)


@dataclass(frozen=True)
class Costs:
    """Operations of one image.

    Attributes:
        macs: Multiply-accumulates of convolutions and matrix products. As usual, element-wise
            operations are not counted.
        fft_flops: Floating-point operations of Fourier transforms, which are not
            multiply-accumulates: 5 N log2 N for a complex transform of N points, half of that for
            a real one.
    """

    macs: int
    fft_flops: int


def count_costs(model: nn.Module, size: int | tuple[int, int] = 224) -> Costs:
    """Counts the operations of one image; on the meta device, nothing is computed.

    Args:
        model: Network whose input is images (B, C, H, W).
        size: Image side, or height and width, in pixels.
    """
    like = next(model.parameters())
    channels = getattr(model, "in_chans", 3)
    sides = (size, size) if isinstance(size, int) else size
    images = torch.empty(1, channels, *sides, device=like.device, dtype=like.dtype)
    with (
        evaluating(model),
        FlopCounterMode(display=False, custom_mapping=_FFT_FLOPS) as counter,
        torch.no_grad(),
    ):
        model(images)
    by_operator = counter.get_flop_counts()["Global"]
    fft = sum(by_operator.get(operator, 0) for operator in _FFT_FLOPS)
    return Costs(macs=(counter.get_total_flops() - fft) // 2, fft_flops=fft)


def count_macs(model: nn.Module, size: int | tuple[int, int] = 224) -> int:
    """Returns the multiply-accumulate operations for one image, without Fourier transforms."""
    return count_costs(model, size).macs


def _fft_flops(points: Sequence[int], dims: Sequence[int], real: bool) -> int:
    """Returns the operations of transforms over some dimensions of an array of this shape."""
    length = prod(points[i] for i in dims)
    flops = 5 * prod(points) * log2(length) if length > 1 else 0
    return round(flops / 2 if real else flops)


def _forward_flops(x: Any, dims: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return _fft_flops(x, dims, real=True)


def _inverse_flops(x: Any, dims: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return _fft_flops(out_shape, dims, real=True)


def _complex_flops(x: Any, dims: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return _fft_flops(x, dims, real=False)


# The counter works on operators, and those of the transforms have no public names.
_FFT_FLOPS: dict[Any, Any] = {
    torch.ops.aten._fft_r2c: _forward_flops,
    torch.ops.aten._fft_c2r: _inverse_flops,
    torch.ops.aten._fft_c2c: _complex_flops,
}
