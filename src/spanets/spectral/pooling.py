r"""Spectral pooling: one gain for low frequencies and one for high (SPANet, Eq. 5-18).

Shape legend: `B` images, `C` channels, `H W` map height and width, `P` pairs of conjugate
frequencies, `K = 1 + 2 P` low-frequency basis functions, `F = W // 2 + 1` half-spectrum columns.

The spectral pooling filter (SPANet, Eq. 5-18) scales the disc of frequencies `u² + v² < r²` by
the balance λ, the ring `u² + v² = r²` by ρ and everything else by `1 - λ`. Outside the few bins of
the closed disc the gain is constant, so the filter is a scaling plus an update of rank K:

    SPF(x) = (1 - λ) x + ((x Φᵀ) ⊙ g) Φ,    g = m - (1 - λ) on the disc

Φ is the real Fourier basis of the disc and m the mask. This takes two thin matrix products and no
transform.
"""

from functools import lru_cache
from math import isclose, isqrt, pi

import torch
from torch import Tensor

from spanets.spectral.constants import SizeConstant
from spanets.spectral.tracing import check_map_size, modulo, square_root, without_autocast

RING = 1 / 3
"""The ring value ρ of the released weights, for every λ."""

METHODS = ("auto", "basis", "fft")

# With more basis functions, the two thin products take longer than two real FFTs.
# Measured on a CPU: benchmarks/results/spectral_pool.json.
MAX_BASIS = 300

Balance = float | Tensor


def low_frequency_mask(
    height: int,
    width: int,
    radius: float,
    balance: Balance,
    ring: Balance | None = RING,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Builds the mask of the spectral pooling filter, with the origin at `(H // 2, W // 2)`.

    Args:
        height: Map height H, in samples.
        width: Map width W, in samples.
        radius: Radius r of the low-frequency disc, in frequency bins.
        balance: λ, the gain inside the disc; `1 - λ` is the gain outside.
        ring: ρ, the gain at distance exactly r; None means `1 - λ`, as in Eq. 16 and 18.
        dtype: dtype of the result.
        device: Device of the result.

    Returns:
        (H, W), or (C, H, W) for a balance or ring of shape (C,).

    Raises:
        ValueError: the radius, H or W is not positive.
    """
    check_map_size(height, width)
    check_radius(radius)
    u = torch.arange(height, device=device) - height // 2
    v = torch.arange(width, device=device) - width // 2
    return _mask(u, v, radius, balance, ring, dtype)


def spectral_pool(
    x: Tensor,
    radius: float,
    balance: Balance,
    ring: Balance | None = RING,
    method: str = "auto",
) -> Tensor:
    """Filters each map with the mask of `low_frequency_mask`: `F⁻¹(m ⊙ F x)` (Eq. 5-18).

    Args:
        x: Real maps (..., C, H, W).
        radius: Radius r of the low-frequency disc, in frequency bins.
        balance: λ, one number or one per channel (C,); may require a gradient.
        ring: ρ, one number or one per channel (C,); None means `1 - λ`.
        method: "basis" (two thin matrix products), "fft" (two real FFTs in float32), or "auto"
            (the basis, unless the disc holds too many frequencies). All compute the same function.

    Returns:
        Filtered maps, with the shape and dtype of x.

    Raises:
        ValueError: unknown method, radius not positive, or empty map.
    """
    height, width = x.shape[-2:]
    check_map_size(height, width)
    check_radius(radius)
    if resolve_method(method, radius, ring) == "fft":
        return _pool_by_fft(x, radius, balance, ring)
    basis = low_frequency_basis(x, radius, closed=ring is not None)
    gain = basis_gain(x, radius, balance, ring)
    maps = x.flatten(-2)  # ... C HW
    low = (maps @ basis.t()) * gain  # ... C K
    high_gain = 1 - _as_column(balance, x)
    return (high_gain * maps + low @ basis).unflatten(-1, (height, width))


def check_radius(radius: float) -> None:
    """Raises ValueError for a radius that is not positive."""
    if not radius > 0:
        raise ValueError(f"radius is {radius}, must be positive")


def resolve_method(method: str, radius: float, ring: Balance | None) -> str:
    """Resolves "auto" to "basis" or "fft"; returns other methods unchanged.

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}, allowed: {', '.join(METHODS)}")
    if method != "auto":
        return method
    return "basis" if basis_size(radius, closed=ring is not None) <= MAX_BASIS else "fft"


def basis_size(radius: float, closed: bool = True) -> int:
    """Returns K, the number of basis functions of the disc (with its ring if closed)."""
    return 1 + 2 * len(_half_disc(radius, closed))


def low_frequency_basis(x: Tensor, radius: float, closed: bool = True) -> Tensor:
    """Returns the real Fourier basis Φ of the low-frequency disc for maps like x: (K, H·W).

    The rows are the constant, then a cosine and then a sine for each conjugate pair. They are
    orthonormal if both map sides are larger than `2 r`. In smaller maps some frequencies do not
    exist or are their own conjugates; scaled rows keep `Φᵀ diag(g) Φ` equal to the filter.

    The result is cached by size, dtype and device; see `SizeConstant`.

    Args:
        x: Maps (..., H, W), for their size, dtype and device.
        radius: Radius of the disc, in frequency bins.
        closed: Whether frequencies at exactly the radius belong to the disc.
    """
    height, width = x.shape[-2:]
    return _basis(x, height, width, radius, closed)


def basis_gain(x: Tensor, radius: float, balance: Balance, ring: Balance | None = RING) -> Tensor:
    """Returns g: the mask's value at each basis function, minus `1 - λ`.

    Args:
        x: Maps (..., C, H, W), for their dtype and device.
        radius: Radius of the disc, in frequency bins.
        balance: λ, one number or (C,).
        ring: ρ, one number or (C,); None leaves the ring out of the basis.

    Returns:
        (1, K) or (C, K), in the order of `low_frequency_basis`.
    """
    low = _as_column(balance, x)
    on_disc = 2 * low - 1  # λ - (1 - λ)
    if ring is None:
        return on_disc.expand(-1, basis_size(radius, closed=False))
    on_disc, on_ring = torch.broadcast_tensors(on_disc, _as_column(ring, x) - (1 - low))
    inside = len(_half_disc(radius, closed=False))
    pairs = len(_half_disc(radius, closed=True))
    half = [on_disc.expand(-1, inside), on_ring.expand(-1, pairs - inside)]
    return torch.cat([on_disc, *half, *half], dim=1)


def _as_column(value: Balance, x: Tensor) -> Tensor:
    """Returns a number as (1, 1), or values per channel as (C, 1), in the dtype of x."""
    if isinstance(value, Tensor):
        return value.to(x.device, x.dtype).reshape(-1, 1)
    return torch.full((1, 1), value, dtype=x.dtype, device=x.device)


def _square(radius: float) -> float:
    """Returns r², rounded to an integer if it is within 1e-6 of one, so that √2 has its ring.

    Outside this tolerance, `_mask` (in float32) and `_half_disc` classify frequencies alike.
    """
    square = radius**2
    return round(square) if isclose(square, round(square), rel_tol=1e-6) else square


def _mask(
    u: Tensor,
    v: Tensor,
    radius: float,
    balance: Balance,
    ring: Balance | None,
    dtype: torch.dtype,
) -> Tensor:
    """Returns the mask at the frequencies u × v: (U, V), or (C, U, V)."""
    low = torch.as_tensor(balance, dtype=dtype, device=u.device)[..., None, None]
    high = 1 - low
    edge = high
    if ring is not None:
        edge = torch.as_tensor(ring, dtype=dtype, device=u.device)[..., None, None]
    distance, square = u[:, None] ** 2 + v[None, :] ** 2, _square(radius)  # U V, squared
    return torch.where(distance < square, low, torch.where(distance == square, edge, high))


def _pool_by_fft(x: Tensor, radius: float, balance: Balance, ring: Balance | None) -> Tensor:
    height, width = x.shape[-2:]
    # In float32: half precision has no FFT on the CPU, and only sizes of powers of two on CUDA.
    wide = x if x.dtype == torch.float64 else x.float()
    with without_autocast(x):
        spectrum = torch.fft.rfft2(wide, dim=(-2, -1), norm="ortho")  # ... C H F
        u = torch.arange(height, device=x.device)
        u = torch.where(u < (height + 1) // 2, u, u - height)  # unshifted: 0, 1, …, -2, -1
        v = torch.arange(width // 2 + 1, device=x.device)
        mask = _mask(u, v, radius, balance, ring, wide.dtype)
        out = torch.fft.irfft2(spectrum * mask, s=(height, width), dim=(-2, -1), norm="ortho")
    return out.to(x.dtype)


# torch.compile takes the result as a constant; otherwise it warns that it traces into the cache.
@torch.compiler.assume_constant_result
def _half_disc(radius: float, closed: bool) -> tuple[tuple[int, int], ...]:
    """Returns one (u, v) of each conjugate pair ±(u, v) in the disc, without the origin."""
    return _cached_half_disc(radius, closed)


@lru_cache(maxsize=256)
def _cached_half_disc(radius: float, closed: bool) -> tuple[tuple[int, int], ...]:
    square = _square(radius)
    reach = isqrt(int(square))
    grid = [(u, v) for u in range(reach + 1) for v in range(-reach, reach + 1)]
    upper = [(u, v) for u, v in grid if u > 0 or v > 0]
    inside = [(u, v) for u, v in upper if u * u + v * v < square]
    ring = [(u, v) for u, v in upper if u * u + v * v == square]
    return tuple(inside + ring if closed else inside)


@SizeConstant
def _basis(
    height: int,
    width: int,
    radius: float,
    closed: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Returns Φ (K, H·W), without branches on the sizes, which may be symbolic."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    constant = torch.ones(1, height * width, dtype=wide, device=device)
    u, v = _frequencies(constant, radius, closed)
    # Reduce the phase to one turn while it is an integer: this is exact at any size.
    rows = modulo(u * torch.arange(height, device=device), height)  # P H
    # Runtimes do not agree on the remainder of a negative number, and v may be one.
    columns = v.sign() * modulo(v.abs() * torch.arange(width, device=device), width)  # P W
    turns = rows.to(wide)[:, :, None] / height + columns.to(wide)[:, None, :] / width  # P H W
    phase = (2 * pi * turns).flatten(1)  # P HW
    # A row counts once for each of ±(u, v) that exists in the spectrum of this size.
    count = _exists(u, height, wide) * _exists(v, width, wide)  # P 1
    count = count + _exists(-u, height, wide) * _exists(-v, width, wide)
    basis = torch.cat([constant, count.sqrt() * phase.cos(), count.sqrt() * phase.sin()])
    return (basis / square_root(height * width, basis)).to(dtype)


@SizeConstant
def _frequencies(
    radius: float, closed: bool, _: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns u and v, (P, 1) each, of `_half_disc`."""
    pairs = torch.tensor(_half_disc(radius, closed), dtype=torch.int64, device=device)
    u, v = pairs.reshape(-1, 2).unbind(1)
    return u[:, None], v[:, None]


def _exists(frequency: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Returns 1 where integer frequencies exist in the shifted spectrum of `size` samples, or 0."""
    # A product: not every runtime has an operator for the conjunction of two masks.
    above, below = frequency >= -(size // 2), frequency <= (size - 1) // 2
    return above.to(dtype) * below.to(dtype)
