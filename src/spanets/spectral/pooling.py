r"""Spectral pooling: one gain for low frequencies and one for high (SPANet, Eq. 5-18).

Shape legend: `B` images, `C` channels, `H W` map height and width, `P` pairs of conjugate
frequencies, `K = 1 + 2 P` low-frequency basis functions, `F = W // 2 + 1` half-spectrum columns.

The spectral pooling filter (SPANet, Eq. 5-18) scales the disc of frequencies `u² + v² < r²` by
the balance λ, the ring `u² + v² = r²` by ρ and everything else by `1 - λ`. Outside the few bins of
the closed disc the gain is constant, so the filter is a scaling plus an update of rank K:

    SPF(x) = (1 - λ) x + ((x Φᵀ) ⊙ g) Φ,    g = m - (1 - λ) on the disc

Φ is the real Fourier basis of the disc and m the mask. This takes two thin matrix products and no
transform.

The equations hold for any number of dimensions: with `dims=1` a map is a line (..., C, W) and the
disc is the interval `v² < r²`; with `dims=3` a map is a volume (..., C, D, H, W) and the disc is
the ball `t² + u² + v² < r²`.
"""

from collections.abc import Sequence
from functools import lru_cache, reduce
from itertools import product
from math import inf, isclose, isqrt, pi
from operator import mul

import torch
from torch import Tensor

from spanets.spectral.constants import SizeConstant
from spanets.spectral.tracing import (
    check_floating_point,
    check_map_size,
    modulo,
    square_root,
    without_autocast,
)

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
        ValueError: the radius, H or W is not positive, or the radius not finite.
    """
    return low_frequency_mask_nd((height, width), radius, balance, ring, dtype, device)


def low_frequency_mask_nd(
    size: Sequence[int],
    radius: float,
    balance: Balance,
    ring: Balance | None = RING,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Builds the mask for maps of any number of dimensions, with the origin at `n // 2` of each.

    Args:
        size: Samples along each dimension, such as (H, W).
        radius, balance, ring, dtype, device: See `low_frequency_mask`.

    Returns:
        `(*size)`, or `(C, *size)` for a balance or ring of shape (C,).

    Raises:
        ValueError: the radius or a size is not positive, or the radius not finite.
    """
    check_map_size(*size)
    check_radius(radius)
    frequencies = [torch.arange(n, device=device) - n // 2 for n in size]
    return _mask(frequencies, radius, balance, ring, dtype)


def spectral_pool(
    x: Tensor,
    radius: float,
    balance: Balance,
    ring: Balance | None = RING,
    method: str = "auto",
    dims: int = 2,
    gain: Tensor | None = None,
) -> Tensor:
    """Filters each map with the mask of `low_frequency_mask`: `F⁻¹(m ⊙ F x)` (Eq. 5-18).

    Args:
        x: Real maps (..., C, H, W).
        radius: Radius r of the low-frequency disc, in frequency bins.
        balance: λ, one number or one per channel (C,); may require a gradient.
        ring: ρ, one number or one per channel (C,); None means `1 - λ`.
        method: "basis" (two thin matrix products), "fft" (two real FFTs in float32), or "auto"
            (the basis, unless the disc holds too many frequencies). All compute the same function.
        dims: Number of dimensions of a map; with 1 or 3, x is (..., C, W) or (..., C, D, H, W).
        gain: `basis_gain` of these values, if it is known; for method "basis".

    Returns:
        Filtered maps, with the shape and dtype of x.

    Raises:
        ValueError: unknown method, radius not positive or not finite, empty map, or maps that are
            not of floating point.
    """
    size = x.shape[-dims:]
    check_map_size(*size)
    check_floating_point(x)
    check_radius(radius)
    if resolve_method(method, radius, ring, dims) == "fft":
        return _pool_by_fft(x, radius, balance, ring, dims)
    basis = low_frequency_basis(x, radius, closed=ring is not None, dims=dims)
    if gain is None:
        gain = basis_gain(x, radius, balance, ring, dims)
    maps = x.flatten(-dims)  # ... C HW
    low = (maps @ basis.t()) * gain  # ... C K
    high_gain = 1 - _as_column(balance, x)
    return (high_gain * maps + low @ basis).unflatten(-1, size)


def check_radius(radius: float) -> None:
    """Raises ValueError for a radius that is not positive, or whose square is not finite."""
    if not (radius > 0 and radius * radius < inf):
        raise ValueError(f"radius is {radius}, must be positive and finite")


def resolve_method(method: str, radius: float, ring: Balance | None, dims: int = 2) -> str:
    """Resolves "auto" to "basis" or "fft"; returns other methods unchanged.

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}, allowed: {', '.join(METHODS)}")
    if method != "auto":
        return method
    return "basis" if basis_size(radius, ring is not None, dims) <= MAX_BASIS else "fft"


def basis_size(radius: float, closed: bool = True, dims: int = 2) -> int:
    """Returns K, the number of basis functions of the disc (with its ring if closed)."""
    return 1 + 2 * len(_half_disc(radius, closed, dims))


def low_frequency_basis(x: Tensor, radius: float, closed: bool = True, dims: int = 2) -> Tensor:
    """Returns the real Fourier basis Φ of the low-frequency disc for maps like x: (K, H·W).

    The rows are the constant, then a cosine and then a sine for each conjugate pair. They are
    orthonormal if all map sides are larger than `2 r`. In smaller maps some frequencies do not
    exist or are their own conjugates; scaled rows keep `Φᵀ diag(g) Φ` equal to the filter.

    The result is cached by size, dtype and device; see `SizeConstant`.

    Args:
        x: Maps (..., H, W), for their size, dtype and device.
        radius: Radius of the disc, in frequency bins.
        closed: Whether frequencies at exactly the radius belong to the disc.
        dims: Number of dimensions of a map.
    """
    return _basis(x, tuple(x.shape[-dims:]), radius, closed)


def basis_gain(
    x: Tensor, radius: float, balance: Balance, ring: Balance | None = RING, dims: int = 2
) -> Tensor:
    """Returns g: the mask's value at each basis function, minus `1 - λ`.

    Args:
        x: Maps (..., C, H, W), for their dtype and device.
        radius: Radius of the disc, in frequency bins.
        balance: λ, one number or (C,).
        ring: ρ, one number or (C,); None leaves the ring out of the basis.
        dims: Number of dimensions of a map.

    Returns:
        (1, K) or (C, K), in the order of `low_frequency_basis`.
    """
    low = _as_column(balance, x)
    on_disc = 2 * low - 1  # λ - (1 - λ)
    if ring is None:
        return on_disc.expand(-1, basis_size(radius, False, dims))
    on_disc, on_ring = torch.broadcast_tensors(on_disc, _as_column(ring, x) - (1 - low))
    inside = len(_half_disc(radius, False, dims))
    pairs = len(_half_disc(radius, True, dims))
    counts = ((on_disc, inside), (on_ring, pairs - inside))
    # Not every runtime has empty tensors. A learnt value must be used to have a gradient.
    used = [(value, count) for value, count in counts if count or value.requires_grad]
    half = [value.expand(-1, count) for value, count in used]
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
    frequencies: Sequence[Tensor],
    radius: float,
    balance: Balance,
    ring: Balance | None,
    dtype: torch.dtype,
) -> Tensor:
    """Returns the mask at the frequencies u × v: (U, V), or (C, U, V); or over more dimensions."""
    distance, square = _grid_sum([f**2 for f in frequencies]), _square(radius)  # U V, squared
    per_map = (..., *[None] * len(frequencies))
    low = torch.as_tensor(balance, dtype=dtype, device=distance.device)[per_map]
    high = 1 - low
    edge = high
    if ring is not None:
        edge = torch.as_tensor(ring, dtype=dtype, device=distance.device)[per_map]
    return torch.where(distance < square, low, torch.where(distance == square, edge, high))


def _grid_sum(values: Sequence[Tensor]) -> Tensor:
    """Returns sums of values along each dimension, (..., U) and (..., V): (..., U, V)."""
    last = len(values) - 1
    index = [(..., *[None] * i, slice(None), *[None] * (last - i)) for i in range(len(values))]
    return reduce(torch.add, [part[i] for part, i in zip(values, index, strict=True)])


def _pool_by_fft(
    x: Tensor, radius: float, balance: Balance, ring: Balance | None, dims: int
) -> Tensor:
    size, axes = x.shape[-dims:], tuple(range(-dims, 0))
    # In float32: half precision has no FFT on the CPU, and only sizes of powers of two on CUDA.
    wide = x if x.dtype == torch.float64 else x.float()
    with without_autocast(x):
        spectrum = torch.fft.rfftn(wide, dim=axes, norm="ortho")  # ... C H F
        frequencies = [_unshifted(n, x.device) for n in size[:-1]]
        frequencies.append(torch.arange(size[-1] // 2 + 1, device=x.device))
        mask = _mask(frequencies, radius, balance, ring, wide.dtype)
        out = torch.fft.irfftn(spectrum * mask, s=size, dim=axes, norm="ortho")
    return out.to(x.dtype)


def _unshifted(size: int, device: torch.device) -> Tensor:
    """Returns the frequencies of a transform in its own order: 0, 1, …, -2, -1."""
    u = torch.arange(size, device=device)
    return torch.where(u < (size + 1) // 2, u, u - size)


# torch.compile takes the result as a constant; otherwise it warns that it traces into the cache.
@torch.compiler.assume_constant_result
def _half_disc(radius: float, closed: bool, dims: int) -> tuple[tuple[int, ...], ...]:
    """Returns one (u, v) of each conjugate pair ±(u, v) in the disc, without the origin."""
    return _cached_half_disc(radius, closed, dims)


@lru_cache(maxsize=256)
def _cached_half_disc(radius: float, closed: bool, dims: int) -> tuple[tuple[int, ...], ...]:
    square = _square(radius)
    reach = isqrt(int(square))
    grid = product(range(-reach, reach + 1), repeat=dims)
    upper = [f for f in grid if f > (0,) * dims]  # the first that is not 0 is positive
    inside = [f for f in upper if sum(u * u for u in f) < square]
    ring = [f for f in upper if sum(u * u for u in f) == square]
    return tuple(inside + ring if closed else inside)


@SizeConstant
def _basis(
    size: tuple[int, ...],
    radius: float,
    closed: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Returns Φ (K, H·W), without branches on the sizes, which may be symbolic."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    like = torch.empty(0, dtype=wide, device=device)
    frequencies = list(zip(_frequencies(like, radius, closed, len(size)), size, strict=True))
    # Reduce the phase to one turn while it is an integer: this is exact at any size.
    turns = [_turns(f, n, wide) for f, n in frequencies]  # of P H and P W
    phase = (2 * pi * _grid_sum(turns)).flatten(1)  # P HW
    constant = torch.ones(1, phase.shape[1], dtype=wide, device=device)
    # A row counts once for each of ±(u, v) that exists in the spectrum of this size.
    there = reduce(mul, [_exists(f, n, wide) for f, n in frequencies])
    back = reduce(mul, [_exists(-f, n, wide) for f, n in frequencies])
    count = there + back  # P 1
    basis = torch.cat([constant, count.sqrt() * phase.cos(), count.sqrt() * phase.sin()])
    return (basis / square_root(phase.shape[1], basis)).to(dtype)


@SizeConstant
def _frequencies(
    radius: float, closed: bool, dims: int, _: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Returns the frequencies of `_half_disc` along each dimension, (P, 1) each."""
    pairs = torch.tensor(_half_disc(radius, closed, dims), dtype=torch.int64, device=device)
    pairs = pairs.reshape(-1, dims)
    return tuple(pairs[:, i : i + 1] for i in range(dims))


def _turns(frequency: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Returns the phase (P, N) of frequencies (P, 1) at each of N samples, less its whole turns."""
    # Runtimes do not agree on the remainder of a negative number, and a frequency may be one.
    along = torch.arange(size, device=frequency.device)
    return (frequency.sign() * modulo(frequency.abs() * along, size)).to(dtype) / size


def _exists(frequency: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Returns 1 where integer frequencies exist in the shifted spectrum of `size` samples, or 0."""
    # A product: not every runtime has an operator for the conjunction of two masks.
    above, below = frequency >= -(size // 2), frequency <= (size - 1) // 2
    return above.to(dtype) * below.to(dtype)
