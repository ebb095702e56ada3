"""Spectral re-scaling against its definition, written out here a second time, at any size."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from spanets.spectral import resize_half_spectrum, resolve_rescale_method, spectral_rescale

# Float64 rounding: sums of up to 1600 terms of size one, 2e-16 each.
EXACT = 1e-10

METHODS = ("matmul", "fft")

sides = st.integers(1, 40)
seeds = st.integers(0, 2**31 - 1)
bounded = settings(deadline=None, derandomize=True, database=None)


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def literal_rescale(x: Tensor, gain: Tensor) -> Tensor:
    """`F⁻¹(g ⊙ F x)` with whole complex transforms and the gain of every bin written out."""
    height, width = x.shape[-2:]
    full = torch.empty(*gain.shape[:-2], height, width, dtype=gain.dtype)
    for u in range(height):
        for v in range(width):
            here = gain[..., u, v] if v < gain.shape[-1] else gain[..., -u % height, width - v]
            if v in (0, width - v):  # its own conjugate column: ±u count together
                here = (gain[..., u, v] + gain[..., -u % height, v]) / 2
            full[..., u, v] = here
    scaled = torch.fft.ifft2(torch.fft.fft2(x, norm="ortho") * full, norm="ortho")
    assert scaled.imag.abs().max() < EXACT
    return scaled.real


@bounded
@given(height=sides, width=sides, seed=seeds)
@example(height=1, width=1, seed=0)
@example(height=2, width=2, seed=0)
def test_definition(height, width, seed):
    x = maps(2, 3, height, width, seed=seed)
    gain = maps(3, height, width // 2 + 1, seed=seed + 1)
    expected = literal_rescale(x, gain)
    for method in METHODS:
        ours = spectral_rescale(x, gain, method)
        assert ours.shape == x.shape
        assert (ours - expected).abs().max() < EXACT


@bounded
@given(height=sides, width=sides, seed=seeds)
def test_gradients(height, width, seed):
    x = maps(2, 3, height, width, seed=seed)
    gain = maps(3, height, width // 2 + 1, seed=seed + 1)
    weight = maps(2, 3, height, width, seed=seed + 2)
    gradients = []
    for method in (literal_rescale, *METHODS):
        leaves = [x.clone().requires_grad_(), gain.clone().requires_grad_()]
        y = method(*leaves) if callable(method) else spectral_rescale(*leaves, method)
        gradients.append(torch.autograd.grad((y * weight).sum(), leaves))
    for ours in gradients[1:]:
        for a, b in zip(ours, gradients[0], strict=True):
            assert (a - b).abs().max() < EXACT


@pytest.mark.parametrize("method", METHODS)
def test_second_gradients(method):
    leaves = (maps(1, 2, 4, 5).requires_grad_(), maps(2, 4, 3, seed=1).requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x, g: spectral_rescale(x, g, method), leaves)


@pytest.mark.parametrize("method", METHODS)
def test_a_gain_of_one_changes_nothing(method):
    x = maps(2, 3, 14, 9)
    assert (spectral_rescale(x, torch.ones(3, 14, 5).double(), method) - x).abs().max() < EXACT


@pytest.mark.parametrize("method", METHODS)
def test_a_gain_of_the_origin_leaves_the_mean(method):
    x = maps(2, 3, 6, 8)
    gain = torch.zeros(3, 6, 5, dtype=torch.float64)
    gain[:, 0, 0] = 1
    ours = spectral_rescale(x, gain, method)
    assert (ours - x.mean((-2, -1), keepdim=True)).abs().max() < EXACT


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", METHODS)
def test_number_formats(method, dtype):
    x, gain = maps(2, 4, 14, 14), maps(4, 14, 8, seed=1).sigmoid()
    exact = spectral_rescale(x, gain, method)
    ours = spectral_rescale(x.to(dtype), gain.to(dtype), method)
    assert ours.dtype == dtype
    # Three products one after the other, each of errors of eps and sums that hardly grow.
    assert (ours.double() - exact).abs().max() < 8 * torch.finfo(dtype).eps * exact.abs().max()


def test_layouts_do_not_matter():
    x, gain = maps(2, 8, 10, 6), maps(8, 10, 4, seed=1)
    for method in METHODS:
        expected = spectral_rescale(x, gain, method)
        last = x.contiguous(memory_format=torch.channels_last)
        assert (spectral_rescale(last, gain, method) - expected).abs().max() < EXACT


def test_methods_by_backend():
    x = torch.zeros(1, 1, 4, 4)
    assert resolve_rescale_method("auto", x) == "fft"
    assert resolve_rescale_method("auto", x.to("meta")) == "matmul"
    assert resolve_rescale_method("auto", x, traced=True) == "matmul"
    assert resolve_rescale_method("matmul", x) == "matmul"
    with FakeTensorMode():
        assert resolve_rescale_method("auto", torch.empty(1, 1, 4, 4, device="cuda")) == "fft"


def test_bad_arguments():
    x, gain = maps(1, 2, 4, 6), maps(2, 4, 4)
    with pytest.raises(ValueError, match="unknown method 'dct', allowed: auto, matmul, fft"):
        spectral_rescale(x, gain, "dct")
    with pytest.raises(ValueError, match=r"gain has shape \(2, 4, 6\), must be \(2, 4, 4\)"):
        spectral_rescale(x, maps(2, 4, 6))
    with pytest.raises(ValueError, match="a map of 0x6 has no samples"):
        spectral_rescale(maps(1, 2, 0, 6), gain)


# ---- filters at another size


def test_resized_to_the_same_size_are_the_same():
    logits = maps(3, 7, 4)
    assert resize_half_spectrum(logits, 7, 7) is logits
    assert resize_half_spectrum(logits, 7, 6) is logits  # both have four columns


@bounded
@given(rows=sides, columns=sides, height=sides, width=sides, seed=seeds)
@example(rows=1, columns=1, height=40, width=40, seed=0)
@example(rows=40, columns=40, height=1, width=1, seed=0)
def test_resized_as_torch_does(rows, columns, height, width, seed):
    logits = maps(2, rows, columns, seed=seed)
    size = (height, width // 2 + 1)
    expected = F.interpolate(logits[None], size, mode="bicubic", align_corners=True)[0]
    torch.testing.assert_close(resize_half_spectrum(logits, height, width), expected)


@bounded
@given(height=st.integers(2, 60), width=st.integers(2, 60))
def test_resized_corners_stay(height, width):
    """Aligned corners: the first and last rows and columns are those of the original."""
    logits = maps(2, 9, 6)
    resized = resize_half_spectrum(logits, height, width)
    assert resized.shape == (2, height, width // 2 + 1)
    for corner in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        ours, theirs = resized[:, *corner], logits[:, *corner]
        assert (ours - theirs).abs().max() < 1e-9


def test_resized_keeps_type_and_gradient():
    logits = torch.randn(2, 5, 3, dtype=torch.bfloat16, requires_grad=True)
    resized = resize_half_spectrum(logits, 8, 8)
    assert resized.dtype == torch.bfloat16
    resized.sum().backward()
    assert logits.grad is not None


def test_resized_without_autocast():
    logits = maps(2, 14, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = resize_half_spectrum(logits, 20, 30)
    assert torch.equal(found, resize_half_spectrum(logits, 20, 30))
