"""The spectral functions against their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spanets import spectral
from spanets.spectral import (
    RING,
    basis_size,
    low_frequency_basis,
    low_frequency_mask,
    resolve_method,
    spectral_pool,
)

# float64 rounding of transforms of at most 1,600 samples of order one is some 1e-14.
EXACT = 1e-10

sizes = st.integers(1, 40)
radii = st.sampled_from([0.5, 1, math.sqrt(2), 1.5, 2, 3, 5, 8])
rings = st.sampled_from([RING, None, 0.2])
few = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def literal_mask(height: int, width: int, radius: float, balance: float, ring: float) -> Tensor:
    """The mask by its three cases, bin by bin."""
    mask = torch.empty(height, width)
    for row in range(height):
        for column in range(width):
            u, v = row - height // 2, column - width // 2
            square = u * u + v * v
            if math.isclose(square, radius**2):
                mask[row, column] = ring
            else:
                mask[row, column] = balance if square < radius**2 else 1 - balance
    return mask


def by_definition(x: Tensor, mask: Tensor) -> Tensor:
    """`F⁻¹(m ⊙ F x)` with complex transforms and a centred mask."""
    unshifted = torch.fft.ifftshift(mask, dim=(-2, -1))
    y = torch.fft.ifft2(unshifted * torch.fft.fft2(x, dim=(-2, -1)), dim=(-2, -1))
    assert y.imag.abs().max() < EXACT  # real for real x
    return y.real


def random_maps(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(sum(shape)))


@few
@given(sizes, sizes, radii, st.sampled_from([0.2, 0.7, 0.9]), st.sampled_from([RING, 0.8]))
def test_mask_is_its_definition(height, width, radius, balance, ring):
    mask = low_frequency_mask(height, width, radius, balance, ring)
    expected = literal_mask(height, width, radius, balance, ring)
    torch.testing.assert_close(mask, expected)


@few
@given(sizes, sizes, radii, rings)
def test_every_method_is_the_definition_with_its_gradients(height, width, radius, ring):
    x = random_maps(2, 3, height, width)
    direction = random_maps(2, 3, height, width).flip(0)
    results = []
    for method in ("definition", "basis", "fft"):
        inputs = [x, torch.tensor([0.7, 0.8, 0.3], dtype=torch.float64)]
        inputs += [] if ring is None else [torch.tensor([ring, 0.5, 0.1], dtype=torch.float64)]
        inputs = [value.clone().requires_grad_() for value in inputs]
        maps, balance, edge = inputs if ring is not None else (*inputs, None)
        if method == "definition":
            mask = low_frequency_mask(height, width, radius, balance, edge, torch.float64)
            y = by_definition(maps, mask)
        else:
            y = spectral_pool(maps, radius, balance, edge, method)
        gradients = torch.autograd.grad((y * direction).sum(), inputs, materialize_grads=True)
        results.append((y, *gradients))
    for other in results[1:]:
        for ours, expected in zip(other, results[0], strict=True):
            assert ours.dtype == torch.float64
            # A gradient of λ sums over all samples, so the bound is relative to the largest.
            assert (ours - expected).abs().max() < EXACT * max(1.0, expected.abs().max())


@few
@given(sizes, sizes, radii, st.sampled_from(["basis", "fft"]))
def test_equal_gains_are_the_identity(height, width, radius, method):
    x = random_maps(1, 2, height, width)
    y = spectral_pool(x, radius, 0.5, 0.5, method) * 2
    assert (y - x).abs().max() < EXACT


@few
@given(sizes, sizes, radii, st.sampled_from(["basis", "fft"]))
def test_a_constant_map_is_scaled_by_the_balance(height, width, radius, method):
    x = torch.full((1, 1, height, width), 3.0, dtype=torch.float64)
    y = spectral_pool(x, radius, 0.7, method=method)
    assert (y - 0.7 * x).abs().max() < EXACT


@few
@given(sizes, sizes, radii, st.integers(0, 40), st.integers(0, 40))
def test_filtering_commutes_with_cyclic_shifts(height, width, radius, down, right):
    x = random_maps(1, 2, height, width)
    shift = {"shifts": (down, right), "dims": (-2, -1)}
    y = spectral_pool(torch.roll(x, **shift), radius, 0.8, method="basis")
    assert (y - torch.roll(spectral_pool(x, radius, 0.8), **shift)).abs().max() < EXACT


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 7), (8, 9), (14, 11)])
def test_basis_is_orthonormal_where_the_map_is_larger_than_the_disc(radius, size):
    x = torch.empty(1, 1, *size, dtype=torch.float64)
    basis = low_frequency_basis(x, radius)
    assert basis.shape == (basis_size(radius), size[0] * size[1])
    error = basis @ basis.mT - torch.eye(len(basis), dtype=torch.float64)
    assert error.abs().max() < EXACT


def test_sizes_of_the_papers_basis():
    assert [basis_size(radius) for radius in (1, 2)] == [5, 13]
    assert basis_size(1, closed=False) == 1  # ρ = 1 - λ: only the mean remains


def test_without_ring_the_filter_of_radius_one_mixes_each_map_with_its_mean():
    x = random_maps(2, 3, 9, 12)
    expected = 0.3 * x + 0.4 * x.mean((-2, -1), keepdim=True)
    assert (spectral_pool(x, 1, 0.7, None) - expected).abs().max() < EXACT


def test_maps_may_have_any_leading_dimensions():
    x = random_maps(2, 3, 4, 10, 12)
    expected = torch.stack([spectral_pool(part, 2, 0.7) for part in x])
    assert (spectral_pool(x, 2, 0.7) - expected).abs().max() < EXACT


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["basis", "fft"])
def test_half_precision_keeps_type_and_function(dtype, method):
    x = random_maps(2, 3, 56, 56)
    y = spectral_pool(x.to(dtype), 2, 0.7, method=method)
    assert y.dtype == dtype
    # A few roundings of numbers of order one, of 2⁻⁹ (bfloat16) or 2⁻¹² (float16) each.
    tolerance = 8 * torch.finfo(dtype).eps
    assert (y.double() - spectral_pool(x, 2, 0.7)).abs().max() < tolerance


def test_auto_takes_the_fft_once_the_basis_has_grown(monkeypatch):
    assert resolve_method("auto", 2, RING) == "basis"
    monkeypatch.setattr(spectral, "MAX_BASIS", 12)
    assert resolve_method("auto", 2, RING) == "fft"
    assert resolve_method("auto", 1, RING) == "basis"
    x = random_maps(1, 1, 20, 21)
    assert (spectral_pool(x, 2, 0.7) - spectral_pool(x, 2, 0.7, method="basis")).abs().max() < EXACT


def test_wrong_arguments_are_named():
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"unknown method 'dct', allowed: auto, basis, fft"):
        spectral_pool(x, 2, 0.7, method="dct")
    with pytest.raises(ValueError, match="radius is 0, must be positive"):
        spectral_pool(x, 0, 0.7)
    with pytest.raises(ValueError, match="radius is -1"):
        low_frequency_mask(4, 4, -1, 0.7)
    with pytest.raises(ValueError, match="a map of 0x4 has no samples"):
        spectral_pool(torch.zeros(1, 1, 0, 4), 1, 0.7)
