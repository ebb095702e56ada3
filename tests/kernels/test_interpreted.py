"""The kernels run by Triton's interpreter, on the CPU; `test_kernels.py` starts this in a process.

What a GPU computes with them is checked by `tests/test_cuda.py`, where there is one.
"""

import pytest
import torch
from absent_gpu import ACTIVE
from torch import Tensor

pytestmark = pytest.mark.skipif(not ACTIVE, reason="Triton is told when it is imported")

if ACTIVE:
    from timm.layers import GroupNorm1

    from spanets.backbones.layers import PointwiseMlp
    from spanets.kernels import gelu, modulation, moments, projection, separable
    from spanets.kernels.forms import separable_conv as plain_separable_conv
    from spanets.kernels.fused import fuse
    from spanets.kernels.half_blocks import add_mlp, add_spam
    from spanets.mixers.spam import SPAM


def maps(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()


def values(*shape: int) -> Tensor:
    return torch.randn(shape).requires_grad_()


def matrix(*shape: int) -> Tensor:
    """A matrix whose products with standard normal vectors have deviation 1.

    Rounding grows with the size of a sum's terms, and the tolerances are absolute.
    """
    return (torch.randn(shape) / shape[-1] ** 0.5).requires_grad_()


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
        pytest.param(2, 40, 9, 11, 7, marks=pytest.mark.slow),
        pytest.param(3, 64, 5, 3, 7, marks=pytest.mark.slow),
        pytest.param(1, 24, 30, 8, 5, marks=pytest.mark.slow),
        pytest.param(33, 8, 3, 2, 3, marks=pytest.mark.slow),
        (1, 8, 1, 1, 7),
        pytest.param(2, 8, 17, 9, 1, marks=pytest.mark.slow),
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
    basis, low = torch.randn(45, modes), values(2, modes, channels)
    theirs = x * (high + (basis @ low).mT.unflatten(2, (5, 9)))
    agree(modulation.modulate(x, high, basis, low), theirs, [x, high, low])


@pytest.mark.parametrize(("channels", "modes"), [(40, 8), (64, 16), (130, 40)])
def test_projection_is_a_product(channels: int, modes: int) -> None:
    x, basis, gain = (
        maps(2, channels, 13, 11),
        torch.randn(143, modes),
        torch.randn(channels, modes),
    )
    theirs = basis.mT @ x.permute(0, 2, 3, 1).flatten(1, 2)
    ours = projection.project(x, basis)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(ours)
    of_x, theirs_of_x = (torch.autograd.grad(out, x, grad)[0] for out in (ours, theirs))
    torch.testing.assert_close(of_x, theirs_of_x, rtol=1e-4, atol=1e-4)
    scaled = projection.project(x.detach(), basis, gain)
    torch.testing.assert_close(scaled, gain.mT * theirs, rtol=1e-4, atol=1e-4)


def norm_of(channels: int, affine: bool) -> "GroupNorm1":
    norm = GroupNorm1(channels)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    if not affine:
        norm.weight = norm.bias = None
    return norm


def far_out(*shape: int) -> Tensor:
    """Maps whose mean is not zero."""
    return (3 * torch.randn(shape) + 2).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "shape",
    [
        (3, 40, 5, 7),
        (1, 8, 1, 1),
        pytest.param((1, 16, 40, 30), marks=pytest.mark.slow),
        pytest.param((2, 64, 40, 30), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("factor", [True, False])
@torch.no_grad()
def test_sums_are_measured(shape: tuple[int, ...], factor: bool) -> None:
    x, branch = far_out(*shape), far_out(*shape)
    scale = torch.randn(shape[1]) if factor else None
    total, found = moments.add_and_measure(x, scale, branch)
    theirs = branch + (x if scale is None else x * scale[:, None, None])
    torch.testing.assert_close(total, theirs)
    weight = torch.randn(33, shape[1])
    for maps, measured in ((theirs, found), (x, moments.measure(x))):
        norm = moments.normalizer(measured, shape[2] * shape[3], weight, 1e-6)
        variance, mean = torch.var_mean(maps.double(), (1, 2, 3), correction=0)
        scales = (variance + 1e-6).rsqrt()
        torch.testing.assert_close(norm.scale.double(), scales, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.shift.double(), -mean * scales, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.sums, weight.sum(1), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_gelu_is_gelu() -> None:
    x = torch.cat([torch.linspace(-12, 12, 3968), torch.logspace(0, 4.8, 64)])
    x = torch.cat([x, -x[-64:]]).view(1, 64, 8, 8).to(memory_format=torch.channels_last)
    norm = moments.Normalizer(torch.ones(1), torch.zeros(1), torch.zeros(64))
    ours = gelu.normed_gelu(x, norm, torch.zeros(64))
    assert (ours - torch.nn.functional.gelu(x)).abs().max() < 5e-5


@pytest.mark.parametrize(
    ("channels", "ratio"),
    [
        (24, 3.5),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((64, 4), (128, 1), (136, 2))),
    ],
)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("factor", [True, False])
@torch.no_grad()
def test_add_mlp_is_norm_mlp_and_shortcut(
    channels: int, ratio: float, affine: bool, factor: bool
) -> None:
    norm, layers = norm_of(channels, affine), fuse(PointwiseMlp(channels, ratio))
    x, scale = far_out(3, channels, 5, 7), torch.randn(channels) if factor else None
    theirs = layers(norm(x)) + (x if scale is None else x * scale[:, None, None])
    torch.testing.assert_close(add_mlp(x, norm, layers, scale), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "channels", [24, *(pytest.param(count, marks=pytest.mark.slow) for count in (64, 128, 136))]
)
@pytest.mark.parametrize("radius", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("factor", [True, pytest.param(False, marks=pytest.mark.slow)])
@torch.no_grad()
def test_add_spam_is_norm_mixer_and_shortcut(channels: int, radius: float, factor: bool) -> None:
    norm, mixer = norm_of(channels, True), fuse(SPAM(channels, radius=radius))
    x, scale = far_out(2, channels, 15, 11), torch.randn(channels) if factor else None
    theirs = mixer(norm(x)) + (x if scale is None else x * scale[:, None, None])
    ours, measured = add_spam(x, norm, mixer, scale)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    found = moments.normalizer(measured, 15 * 11, torch.ones(1, channels), 0.0)
    variance = theirs.var((1, 2, 3), correction=0)
    torch.testing.assert_close(found.scale, variance.rsqrt(), rtol=1e-4, atol=1e-4)


def test_gelu_linear_is_gelu_and_a_product() -> None:
    x, weight, bias = maps(2, 40, 5, 9), matrix(24, 40), values(24)
    theirs = torch.nn.functional.conv2d(torch.nn.functional.gelu(x), weight[:, :, None, None], bias)
    agree(gelu.gelu_linear(x, weight, bias), theirs, [x, weight, bias])


@pytest.mark.parametrize(("channels", "modes"), [(40, 8), (64, 16)])
def test_modulated_linear_is_modulation_and_a_product(channels: int, modes: int) -> None:
    x, high = maps(2, channels, 5, 9), maps(2, channels, 5, 9)
    basis, low = matrix(45, modes).detach(), values(2, modes, channels)
    weight, bias = matrix(24, channels), values(24)
    theirs = x * (high + (basis @ low).mT.unflatten(2, (5, 9)))
    theirs = torch.nn.functional.conv2d(theirs, weight[:, :, None, None], bias)
    ours = modulation.modulated_linear(x, high, basis, low, weight, bias)
    agree(ours, theirs, [x, high, low, weight, bias])
