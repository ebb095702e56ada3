"""Spectral pooling against its definition, written out here a second time, at any size."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spanets.spectral import (
    RING,
    basis_gain,
    basis_size,
    low_frequency_basis,
    low_frequency_mask,
    pooling,
    resolve_method,
    spectral_pool,
    spectral_rescale,
)

# Float64 rounding: sums of up to 1600 terms of size one, 2e-16 each.
EXACT = 1e-10

METHODS = ("basis", "fft")
RADII = [1, 2, 3, 4, 1.5, 2.3, math.sqrt(2), math.sqrt(5), 0.5, 7]

sides = st.integers(1, 40)
radii = st.sampled_from(RADII)
gains = st.floats(-1, 2)
seeds = st.integers(0, 2**31 - 1)
bounded = settings(deadline=None, derandomize=True, database=None)


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def literal_mask(height: int, width: int, radius: float, low: float, ring: float) -> Tensor:
    """Mathematics 1.1, bin by bin; a squared radius is whole if it is but for rounding."""
    mask = torch.empty(height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            u, v = i - height // 2, j - width // 2
            if math.isclose(u * u + v * v, radius * radius, rel_tol=1e-9):
                mask[i, j] = ring
            else:
                mask[i, j] = low if u * u + v * v < radius * radius else 1 - low
    return mask


def literal_pool(x: Tensor, mask: Tensor) -> Tensor:
    """`F⁻¹(m ⊙ F x)` with whole complex transforms and the origin shifted to the middle."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(x, norm="ortho"), dim=(-2, -1))
    pooled = torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask, dim=(-2, -1)), norm="ortho")
    assert pooled.imag.abs().max() < EXACT  # or the mask were not symmetric
    return pooled.real


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = EXACT) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


# ---- the mask


@bounded
@given(height=sides, width=sides, radius=radii, low=gains, ring=gains | st.none())
def test_mask_is_the_definition(height, width, radius, low, ring):
    mask = low_frequency_mask(height, width, radius, low, ring, torch.float64)
    expected = literal_mask(height, width, radius, low, 1 - low if ring is None else ring)
    assert_close(mask, expected, 0)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (6, 9)])
def test_mask_is_a_disc_around_the_origin(size):
    """λ on five bins, then the ring of the radius 2, counted by hand."""
    mask = low_frequency_mask(*size, 2, 0.9, 0.4)
    values, counts = mask.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0.1, 0.4, 0.9])
    assert counts.tolist() == [size[0] * size[1] - 13, 4, 9]
    assert mask[size[0] // 2, size[1] // 2] == values[2]


def test_mask_per_channel():
    balance, ring = torch.tensor([0.7, 0.8]), torch.tensor([0.1, 0.2])
    mask = low_frequency_mask(9, 6, 2, balance, ring)
    assert mask.shape == (2, 9, 6)
    for i in range(2):
        assert_close(mask[i], low_frequency_mask(9, 6, 2, balance[i].item(), ring[i].item()), 1e-7)
    assert low_frequency_mask(9, 6, 2, balance, None).shape == (2, 9, 6)
    assert low_frequency_mask(9, 6, 2, 0.7, ring).shape == (2, 9, 6)


def test_mask_of_the_released_weights():
    """Ring 1/3 whatever the balance: the default."""
    for balance in (0.7, 0.8, 0.9):
        mask = low_frequency_mask(14, 14, 1, balance)
        assert_close(mask[7, 6:9], torch.tensor([1 / 3, balance, 1 / 3]), 1e-7)


# ---- the filter equals its definition


@bounded
@given(
    height=sides, width=sides, radius=radii, low=gains, ring=gains | st.none(), seed=seeds,
    method=st.sampled_from(METHODS),
)  # fmt: skip
def test_filter_is_the_definition(height, width, radius, low, ring, seed, method):
    x = maps(2, 3, height, width, seed=seed)
    mask = literal_mask(height, width, radius, low, 1 - low if ring is None else ring)
    pooled = spectral_pool(x, radius, low, ring, method)
    assert pooled.dtype == torch.float64  # real, too
    assert_close(pooled, literal_pool(x, mask))


@bounded
@given(
    height=sides, width=sides, radius=radii, seed=seeds, with_ring=st.booleans(),
    method=st.sampled_from(METHODS),
)  # fmt: skip
def test_gradients_are_those_of_the_definition(height, width, radius, seed, with_ring, method):
    """With respect to maps, balances and rings, one of each a channel."""
    direction = maps(2, 3, height, width, seed=seed + 1)

    def gradients(pool: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> list[Tensor]:
        x = maps(2, 3, height, width, seed=seed).requires_grad_()
        low = torch.tensor([0.6, 0.7, 0.9], dtype=torch.float64, requires_grad=True)
        ring = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64, requires_grad=True)
        inputs = [x, low, ring] if with_ring else [x, low]
        loss = (pool(x, low, ring if with_ring else None) * direction).sum()
        return list(torch.autograd.grad(loss, inputs))

    def by_definition(x: Tensor, low: Tensor, ring: Tensor | None) -> Tensor:
        ones = [literal_mask(height, width, radius, *kind) for kind in [(1, 0), (0, 1), (0, 0)]]
        disc, edge, rest = ones[0], ones[1] - ones[2], ones[2]
        low, edge_gain = low[:, None, None], (1 - low if ring is None else ring)[:, None, None]
        mask = low * disc + edge_gain * edge + (1 - low) * rest
        return literal_pool(x, mask)

    expected = gradients(by_definition)
    ours = gradients(lambda x, low, ring: spectral_pool(x, radius, low, ring, method))
    for a, b in zip(ours, expected, strict=True):
        # Sums over up to 9600 samples, so ten times as far from exact.
        assert_close(a, b, 10 * EXACT)


@pytest.mark.parametrize("method", METHODS)
def test_second_derivatives(method):
    x = maps(1, 2, 5, 4).requires_grad_()
    low = torch.tensor([0.7, 0.9], dtype=torch.float64, requires_grad=True)
    ring = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
    inputs = (x, low, ring)
    assert torch.autograd.gradgradcheck(lambda *a: spectral_pool(a[0], 2, *a[1:], method), inputs)


# ---- what follows from the definition


@bounded
@given(height=sides, width=sides, radius=radii, seed=seeds, method=st.sampled_from(METHODS))
def test_all_pass_is_the_identity(height, width, radius, seed, method):
    """Balance 1/2 and ring 1/2 weigh all frequencies alike, by one half."""
    x = maps(1, 2, height, width, seed=seed)
    assert_close(2 * spectral_pool(x, radius, 0.5, 0.5, method), x)


@bounded
@given(height=sides, width=sides, radius=radii, low=gains, method=st.sampled_from(METHODS))
def test_constant_map_is_scaled_by_the_balance(height, width, radius, low, method):
    x = torch.full((1, 1, height, width), 3.0, dtype=torch.float64)
    assert_close(spectral_pool(x, radius, low, method=method), low * x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("u", "v", "gain"),
    [(0, 1, 0.8), (1, 1, 0.8), (2, 0, RING), (0, 2, RING), (1, 2, 0.2), (4, 3, 0.2)],
)
def test_wave_is_scaled_by_the_mask_at_its_frequency(u, v, gain, method):
    rows, columns = torch.arange(12)[:, None] / 12, torch.arange(10) / 10
    wave = torch.cos(2 * math.pi * (u * rows + v * columns) + 0.4).double()[None, None]
    # The wave is computed in float32.
    assert_close(spectral_pool(wave, 2, 0.8, RING, method), gain * wave, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_smallest_disc_mixes_a_map_with_its_mean(method):
    """Without ring and at radius 1 only the mean remains of the disc."""
    x = maps(2, 3, 9, 8)
    expected = 0.3 * x + 0.4 * x.mean((-2, -1), keepdim=True)
    assert_close(spectral_pool(x, 1, 0.7, None, method), expected)


@bounded
@given(
    height=sides, width=sides, radius=radii, down=st.integers(0, 40), right=st.integers(0, 40),
    seed=seeds, method=st.sampled_from(METHODS),
)  # fmt: skip
def test_linear_and_equivariant_to_shifts(height, width, radius, down, right, seed, method):
    x, y = maps(1, 2, height, width, seed=seed), maps(1, 2, height, width, seed=seed + 1)

    def pool(x: Tensor) -> Tensor:
        return spectral_pool(x, radius, 0.8, RING, method)

    assert_close(pool(2 * x - 3 * y), 2 * pool(x) - 3 * pool(y))
    shift = {"shifts": (down, right), "dims": (-2, -1)}
    assert_close(pool(x.roll(**shift)), pool(x).roll(**shift))


@bounded
@given(height=sides, width=sides, radius=radii, seed=seeds)
def test_self_adjoint(height, width, radius, seed):
    """A real, symmetric mask: `<SPF x, y> = <x, SPF y>`."""
    x, y = maps(1, 1, height, width, seed=seed), maps(1, 1, height, width, seed=seed + 1)
    ours = (spectral_pool(x, radius, 0.8) * y).sum()
    assert_close(ours, (x * spectral_pool(y, radius, 0.8)).sum(), 10 * EXACT)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("leading", [(), (4,), (2, 3, 4)])
def test_any_leading_dimensions(leading, method):
    x = maps(*leading, 3, 6, 5)
    mask = literal_mask(6, 5, 2, 0.7, RING)
    assert_close(spectral_pool(x, 2, 0.7, RING, method), literal_pool(x, mask))


@pytest.mark.parametrize("method", METHODS)
def test_balances_and_rings_per_channel(method):
    x = maps(2, 3, 8, 7)
    low, ring = torch.tensor([0.6, 0.7, 0.9]).double(), torch.tensor([0.1, 0.3, 0.5]).double()
    for rings in (ring, RING, None):
        pooled = spectral_pool(x, 2, low, rings, method)
        for i in range(3):
            one = rings[i].item() if isinstance(rings, Tensor) else rings
            assert_close(
                pooled[:, i : i + 1], spectral_pool(x[:, i : i + 1], 2, low[i].item(), one)
            )
    pooled = spectral_pool(x, 2, 0.7, ring, method)
    assert_close(pooled[:, 2:], spectral_pool(x[:, 2:], 2, 0.7, 0.5))


@pytest.mark.parametrize("method", METHODS)
def test_maps_in_any_layout(method):
    x = maps(2, 6, 9, 8)
    expected = spectral_pool(x, 2, 0.8, RING, method)
    last = x.contiguous(memory_format=torch.channels_last)
    assert_close(spectral_pool(last, 2, 0.8, RING, method), expected)
    assert_close(spectral_pool(x.mT, 2, 0.8, RING, method), expected.mT)


# ---- the basis


@bounded
@given(radius=radii, height=sides, width=sides, closed=st.booleans())
def test_basis_is_orthonormal_on_larger_maps(radius, height, width, closed):
    """Larger than 2r, so that each frequency of the disc and its conjugate exist."""
    height, width = height + math.floor(2 * radius), width + math.floor(2 * radius)
    basis = low_frequency_basis(maps(1, height, width), radius, closed)
    assert basis.shape == (basis_size(radius, closed), height * width)
    assert_close(basis @ basis.mT, torch.eye(len(basis), dtype=torch.float64))


def test_sizes_of_the_basis():
    """Mathematics 1.2: 5 and 13 bins with the ring, 1 and 9 without."""
    assert [basis_size(r) for r in (1, 2)] == [5, 13]
    assert [basis_size(r, closed=False) for r in (1, 2)] == [1, 9]
    # A radius that is irrational has its ring, though its square is not 2 in floating point.
    assert math.sqrt(2) ** 2 != 2
    assert [basis_size(math.sqrt(2), closed) for closed in (False, True)] == [5, 9]


@bounded
@given(radius=radii, low=gains, ring=gains | st.none())
def test_gain_is_the_mask_on_the_basis(radius, low, ring):
    """Each row of the basis is scaled by the filter to its gain plus `1 - λ`."""
    side = 2 * math.ceil(radius) + 3
    x = maps(1, side, side)
    basis = low_frequency_basis(x, radius, ring is not None)
    gain = basis_gain(x, radius, low, ring) + 1 - low  # 1 K
    mask = literal_mask(side, side, radius, low, 1 - low if ring is None else ring)
    pooled = literal_pool(basis.unflatten(1, (side, side)), mask).flatten(1)
    assert_close(pooled, gain.mT * basis)


def test_basis_is_cached_by_size_type_device_and_radius():
    x = maps(1, 8, 9)
    basis = low_frequency_basis(x, 2)
    assert low_frequency_basis(torch.zeros_like(x), 2) is basis
    for other in (x.float(), x.mT, maps(1, 9, 9), x.to("meta")):
        assert low_frequency_basis(other, 2) is not basis
    assert low_frequency_basis(x, 1).shape != basis.shape
    assert low_frequency_basis(x, 2, closed=False).shape != basis.shape


def test_cache_is_bounded():
    first = low_frequency_basis(maps(1, 3, 3), 1)
    limit = pooling._basis.cached.cache_info().maxsize
    for width in range(1, limit + 2):
        low_frequency_basis(maps(1, 2, width), 1)
    assert pooling._basis.cached.cache_info().currsize == limit
    again = low_frequency_basis(maps(1, 3, 3), 1)
    assert again is not first
    assert_close(again, first, 0)


# ---- methods, formats, errors


def test_auto_takes_the_basis_while_it_is_small(monkeypatch):
    # The limit is a measured number; the rule holds for any.
    limit = 64
    monkeypatch.setattr(pooling, "MAX_BASIS", limit)
    assert basis_size(4) <= limit < basis_size(5)
    assert [resolve_method("auto", radius, RING) for radius in (1, 4, 5)] == [
        "basis",
        "basis",
        "fft",
    ]
    # The open disc of the same radius holds fewer frequencies.
    between = math.sqrt(20)
    assert basis_size(between, closed=False) <= limit < basis_size(between)
    assert [resolve_method("auto", between, ring) for ring in (RING, None)] == ["fft", "basis"]
    assert [resolve_method(method, 1, RING) for method in METHODS] == list(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    # Float32 has 24 bits, float16 11, bfloat16 8; maps of size 3, some ten roundings each.
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 8e-2)],
)
def test_number_formats(dtype, tolerance, method):
    x = maps(2, 3, 14, 15).to(dtype)
    low = torch.tensor([0.7, 0.8, 0.9])
    pooled = spectral_pool(x, 2, low, RING, method)
    assert pooled.dtype == dtype
    expected = spectral_pool(x.double(), 2, low.double(), RING, "fft")
    assert_close(pooled.double(), expected, tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_large_maps_in_float32(method):
    """Phases are kept exact: the error does not grow with the size."""
    x = maps(1, 1, 300, 257)
    pooled = spectral_pool(x.float(), 2, 0.8, RING, method)
    assert_close(pooled.double(), spectral_pool(x, 2, 0.8, RING, "fft"), 5e-6)


def test_phases_of_many_turns():
    """Whole turns are taken off before rounding: a basis in float32 is off by an eps or two.

    Sixty turns in float32 would cost 6e-6 of a turn, 4e-5 of an entry.
    """
    x = maps(1, 1, 300)
    basis = low_frequency_basis(x, 60)
    error = (low_frequency_basis(x.float(), 60).double() - basis).abs().max() / basis.abs().max()
    assert error < 2e-6


@pytest.mark.parametrize("method", METHODS)
def test_float32_results_under_autocast(method):
    x = maps(2, 3, 14, 15).float()
    expected = spectral_pool(x, 2, 0.8)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = spectral_pool(x, 2, 0.8, method=method)
    assert pooled.dtype == torch.float32
    # The products are taken in bfloat16; the transform, which cannot, in float32.
    assert_close(pooled, expected, 2e-2 if method == "basis" else 1e-5)


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown method 'dct', allowed: auto, basis, fft"):
        spectral_pool(maps(1, 4, 4), 1, 0.7, method="dct")


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_of_floating_point(dtype, method):
    """Others would be rounded, or lose their imaginary part."""
    with pytest.raises(ValueError, match=f"maps of {dtype} cannot be filtered; convert them"):
        spectral_pool(torch.ones(1, 2, 4, 4, dtype=dtype), 1, 0.7, method=method)
    gain = torch.ones(2, 4, 3)
    with pytest.raises(ValueError, match=f"maps of {dtype} cannot be filtered; convert them"):
        spectral_rescale(torch.ones(1, 2, 4, 4, dtype=dtype), gain)


@pytest.mark.parametrize("radius", [0, -1, float("nan"), float("inf"), 1e200])
def test_radius_must_be_positive(radius):
    with pytest.raises(ValueError, match=re.escape(f"radius is {radius}, must be")):
        spectral_pool(maps(1, 4, 4), radius, 0.7)
    with pytest.raises(ValueError, match=re.escape(f"radius is {radius}, must be")):
        low_frequency_mask(4, 4, radius, 0.7)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_map_without_samples(size):
    with pytest.raises(ValueError, match=f"a map of {size[0]}x{size[1]} has no samples"):
        spectral_pool(maps(1, *size), 1, 0.7)
    with pytest.raises(ValueError, match=f"a map of {size[0]}x{size[1]} has no samples"):
        low_frequency_mask(*size, 1, 0.7)
