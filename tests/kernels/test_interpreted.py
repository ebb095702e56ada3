"""The kernels run by Triton's interpreter, on the CPU; `test_kernels.py` starts this in a process.

What a GPU computes with them is checked by `tests/test_cuda.py`, where there is one.
"""

import os

import numpy as np
import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="Triton is told when it is imported"
)

if os.environ.get("TRITON_INTERPRET") == "1":
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from spanets.kernels import mlp, modulation, separable
    from spanets.layers import MapNorm, PointwiseMlp, add_mlp
    from spanets.mixers.spam import separable_conv as plain_separable_conv

    def _splat(_: InterpreterBuilder, shape: tl.block_type, scalar: TensorHandle) -> TensorHandle:
        # Triton 3.9's interpreter takes a scalar comparison for a whole number.
        value = np.full(shape.shape, scalar.data.ravel()[0], dtype=scalar.data.dtype)
        return TensorHandle(value, shape.scalar)

    InterpreterBuilder.create_splat = _splat
    for module in (separable, modulation, mlp):
        # torch accepts no interpreted kernels.
        module.wrap_triton = lambda kernel: kernel


def maps(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()


def values(*shape: int) -> Tensor:
    return torch.randn(shape).requires_grad_()


def agree(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    """Values and gradients agree to float32's rounding."""
    grad = torch.randn_like(ours)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    pairs = zip(
        torch.autograd.grad(ours, inputs, grad),
        torch.autograd.grad(theirs, inputs, grad),
        strict=True,
    )
    for our, their in pairs:
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-5 * float(their.abs().max()))


@pytest.mark.parametrize(
    ("batch", "channels", "height", "width", "taps"),
    [
        (2, 40, 9, 11, 7),
        (3, 64, 5, 3, 7),
        (1, 24, 30, 8, 5),
        (33, 8, 3, 2, 3),
        (1, 8, 1, 1, 11),
        (2, 8, 17, 9, 1),
    ],
)
def test_separable_conv_is_two_convolutions(
    batch: int, channels: int, height: int, width: int, taps: int
) -> None:
    x = maps(batch, channels, height, width)
    weights = [
        values(channels, 1, 1, taps),
        values(channels),
        values(channels, 1, taps, 1),
        values(channels),
    ]
    ours, theirs = separable.separable_conv(x, *weights), plain_separable_conv(x, *weights)
    agree(ours, theirs, [x, *weights])


@pytest.mark.parametrize(("channels", "modes"), [(40, 8), (64, 16), (8, 24), (130, 40)])
def test_modulation_is_a_sum_and_a_product(channels: int, modes: int) -> None:
    x, high = maps(2, channels, 5, 9), maps(2, channels, 5, 9)
    waves, low = torch.randn(45, modes), values(2, modes, channels)
    theirs = x * (high + (waves @ low).mT.unflatten(2, (5, 9)))
    agree(modulation.modulate(x, high, waves, low), theirs, [x, high, low])


@pytest.mark.parametrize(("channels", "ratio"), [(24, 3.5), (64, 4.0), (96, 4.0), (128, 1.0)])
@pytest.mark.parametrize("affine", [True, False])
@torch.no_grad()
def test_mlp_is_norm_mlp_and_shortcut(channels: int, ratio: float, affine: bool) -> None:
    norm, layers = MapNorm(channels), PointwiseMlp(channels, ratio)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    if not affine:
        norm.weight = norm.bias = None
    x = maps(3, channels, 5, 7)
    theirs = x + layers(norm(x))
    torch.testing.assert_close(add_mlp(x, norm, layers), theirs, rtol=1e-5, atol=1e-5)
