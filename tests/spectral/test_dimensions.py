"""Spectral functions of maps of one, two and three dimensions, against whole transforms."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from spanets.spectral import (
    RING,
    basis_size,
    low_frequency_basis,
    low_frequency_mask,
    low_frequency_mask_nd,
    resolve_method,
    spectral_pool,
    spectral_rescale,
)

# Float64 rounding of sums of some hundred terms of size one.
EXACT = 1e-10

SIZES = [(1,), (2,), (9,), (12,), (7, 6), (4, 5, 6), (5, 3, 7), (8, 1, 9), (1, 1, 4), (2, 2, 2)]
RADII = [0.5, 1, math.sqrt(2), 2, math.sqrt(3), 2.5]


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def literal_mask(size: tuple[int, ...], radius: float, low: float, ring: float) -> Tensor:
    """The definition, bin by bin; a squared radius is whole if it is but for rounding."""
    mask = torch.empty(size, dtype=torch.float64)
    for place in product(*map(range, size)):
        distance = sum((i - n // 2) ** 2 for i, n in zip(place, size, strict=True))
        if math.isclose(distance, radius * radius, rel_tol=1e-9):
            mask[place] = ring
        else:
            mask[place] = low if distance < radius * radius else 1 - low
    return mask


def literal_pool(x: Tensor, mask: Tensor) -> Tensor:
    """`F⁻¹(m ⊙ F x)` with whole complex transforms and the origin shifted to the middle."""
    axes = tuple(range(-mask.ndim, 0))
    spectrum = torch.fft.fftshift(torch.fft.fftn(x, dim=axes), dim=axes)
    pooled = torch.fft.ifftn(torch.fft.ifftshift(spectrum * mask, dim=axes), dim=axes)
    assert pooled.imag.abs().max() < EXACT  # or the mask were not symmetric
    return pooled.real


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = EXACT) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("radius", RADII)
def test_mask_and_filter_are_the_definition(size, radius):
    mask = literal_mask(size, radius, 0.7, RING)
    assert_close(low_frequency_mask_nd(size, radius, 0.7, dtype=torch.float64), mask, 0)
    x = maps(2, 3, *size)
    for method in ("basis", "fft"):
        pooled = spectral_pool(x, radius, 0.7, RING, method, len(size))
        assert_close(pooled, literal_pool(x, mask))
        bare = spectral_pool(x, radius, 0.7, None, method, len(size))
        assert_close(bare, literal_pool(x, literal_mask(size, radius, 0.7, 0.3)))


@pytest.mark.parametrize("size", [(10,), (5, 6, 3)], ids=str)
@pytest.mark.parametrize("method", ["basis", "fft"])
def test_balances_per_channel_and_their_gradients(size, method):
    x, low = maps(2, 2, *size).requires_grad_(), torch.tensor([0.6, 0.9]).double()
    low.requires_grad_()
    pooled = spectral_pool(x, 1, low, RING, method, len(size))
    for i in range(2):
        expected = literal_pool(x[:, i], literal_mask(size, 1, low[i].item(), RING))
        assert_close(pooled[:, i], expected)

    def pool(x: Tensor, low: Tensor) -> Tensor:
        return spectral_pool(x, 1, low, RING, method, len(size))

    assert torch.autograd.gradcheck(pool, (x[:1, :, ..., :3].detach().requires_grad_(), low))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_constant_maps_and_the_identity(dims):
    x = maps(1, 2, *(5, 6, 7)[:dims])
    for method in ("basis", "fft"):
        assert_close(2 * spectral_pool(x, 2, 0.5, 0.5, method, dims), x)
        flat = spectral_pool(torch.ones_like(x), 2, 0.8, RING, method, dims)
        assert_close(flat, 0.8 * torch.ones_like(x))


def test_basis_counts_the_points_of_the_ball():
    """Whole points within 1 and 2 of the origin, counted by hand."""
    assert [basis_size(r, dims=1) for r in (1, 2)] == [3, 5]
    assert [basis_size(r, dims=3) for r in (1, 2)] == [7, 33]
    assert [basis_size(r, closed=False, dims=3) for r in (1, 2)] == [1, 27]
    # In space there are more points, so that the FFT is the faster method sooner.
    assert [resolve_method("auto", 5, RING, dims) for dims in (1, 2, 3)] == ["basis"] * 2 + ["fft"]


@pytest.mark.parametrize("size", [(5,), (8,), (5, 7, 6)], ids=str)
def test_basis_is_orthonormal(size):
    basis = low_frequency_basis(maps(1, *size), 2, dims=len(size))
    assert basis.shape == (basis_size(2, dims=len(size)), math.prod(size))
    assert_close(basis @ basis.mT, torch.eye(len(basis), dtype=torch.float64))


def test_a_line_is_a_map_of_height_one():
    for width in (8, 9):
        x = maps(2, 3, width)
        flat = spectral_pool(x[:, :, None], 2, 0.7)[:, :, 0]
        assert_close(spectral_pool(x, 2, 0.7, dims=1), flat)
        line = low_frequency_mask_nd((width,), 2, 0.7)
        assert_close(line, low_frequency_mask(1, width, 2, 0.7)[0], 0)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rescaling_is_the_definition(size):
    axes = tuple(range(-len(size), 0))
    x, gain = maps(2, 3, *size), maps(3, *size[:-1], size[-1] // 2 + 1, seed=1)
    spectrum = torch.fft.rfftn(x, dim=axes) * gain
    expected = torch.fft.irfftn(spectrum, s=size, dim=axes)
    assert_close(spectral_rescale(x, gain, dims=len(size)), expected)
    ones = torch.ones_like(gain)
    assert_close(spectral_rescale(x, ones, dims=len(size)), x)


@pytest.mark.parametrize("dims", [1, 3])
def test_errors(dims):
    x = maps(1, 2, *[4] * dims)
    with pytest.raises(ValueError, match=f"'matmul' is for dims 2, not {dims}; use 'fft'"):
        spectral_rescale(x, maps(2, *[4] * (dims - 1), 3), "matmul", dims)
    with pytest.raises(ValueError, match="gain has shape"):
        spectral_rescale(x, maps(2, 4, 4, 4), dims=dims)
    with pytest.raises(ValueError, match="0 has no samples"):
        spectral_pool(x[..., :0], 1, 0.7, dims=dims)
