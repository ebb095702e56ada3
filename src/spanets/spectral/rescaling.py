r"""Spectral re-scaling: a learnt gain for every spatial frequency (SPANetV2, arXiv 2503.23947).

Shape legend: `C` channels, `H W` map height and width, `F = W // 2 + 1` half-spectrum columns.

    SRF(x) = F⁻¹(g ⊙ F x)

The discrete Hartley transform computes the same with real numbers. With cas t = cos t + sin t, its
matrix `A_N[k, n] = cas(2π k n / N) / √N` is symmetric, orthonormal and its own inverse. A basis
function `cas(u) cas(v)` contains the frequencies (u, v) and (u, -v), whose gains differ. So the
filter maps it to a mixture of itself and its mirror image `cas(-u) cas(-v)`:

    SRF(x) = A_H (e ⊙ A_H x A_W + o ⊙ A'_H x A'_W) A_W
    e(u, v) = (g(u, v) + g(-u, v)) / 2,    o(u, v) = (g(-u, v) - g(u, v)) / 2

where A' is the matrix of the negative frequencies, `A'_N[k, n] = A_N[-k, n]`. These are six matrix
products, which every exporter, compiler and accelerator runs in any dtype. The two with A' replace
a mirroring of the spectrum: moving a map in memory costs more than multiplying it.
"""

from math import pi

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from spanets.spectral.constants import SizeConstant
from spanets.spectral.tracing import (
    check_floating_point,
    check_map_size,
    fixed_size,
    is_exporting,
    is_traced,
    modulo,
    without_autocast,
)

RESCALE_METHODS = ("auto", "matmul", "fft")

CUBIC = -0.75
"""Slope of the cubic convolution kernel at distance 1; torch's value."""


def spectral_rescale(x: Tensor, gain: Tensor, method: str = "auto", dims: int = 2) -> Tensor:
    """Scales the spectrum of each map by a real gain: `F⁻¹(g ⊙ F x)`.

    Args:
        x: Real maps (..., C, H, W).
        gain: Factors (C, H, F), one for each bin of the half spectrum of `torch.fft.rfft2`. The
            columns v = 0 and, for even W, v = W / 2 are their own conjugates. There the mean of
            the gains at (u, v) and (-u, v) applies, as in `torch.fft.irfft2`.
        method: "matmul" (matrix products in the dtype of x), "fft" (two real FFTs in float32), or
            "auto" (see `resolve_rescale_method`). All compute the same function.
        dims: Number of dimensions of a map; with 1 or 3, x is (..., C, W) or (..., C, D, H, W), the
            gain is (C, F) or (C, D, H, F), and "auto" is the FFT.

    Returns:
        Filtered maps, with the shape and dtype of x.

    Raises:
        ValueError: unknown method, "matmul" for maps that are not two-dimensional, empty map, maps
            that are not of floating point, or wrong shape of the gain.
    """
    check_floating_point(x)
    traced = is_traced(x)
    if not traced:
        _check_shapes(x, gain, dims)
    if dims != 2 and method == "matmul":
        raise ValueError(f"method 'matmul' is for dims 2, not {dims}; use 'fft'")
    if resolve_rescale_method(method, x, traced) == "fft" or dims != 2:
        return _rescale_by_fft(x, gain, dims)
    height, width = x.shape[-2:]
    even, odd = _even_odd(gain.to(x.dtype), width)  # C H W
    # Both matrices are symmetric, so they multiply from the left and from the right.
    rows, columns = _hartley_matrices(x, height), _hartley_matrices(x, width)
    spectrum, mirrored = (
        torch.matmul(torch.matmul(r, x), c) for r, c in zip(rows, columns, strict=True)
    )
    scaled = even * spectrum + odd * mirrored
    return torch.matmul(torch.matmul(rows[0], scaled), columns[0])


def resolve_rescale_method(method: str, x: Tensor, traced: bool | None = None) -> str:
    """Resolves "auto" to "matmul" or "fft"; returns other methods unchanged.

    "auto" is the FFT in eager mode on the CPU, where it is 1.4 to 3 times as fast
    (benchmarks/results/spectral_rescale.json), and on CUDA, also compiled, where it makes a network
    a tenth faster (gpu.json there). It is matrix products for exporters, compilers for the CPU, and
    other accelerators, which run FFTs badly or not at all.

    Raises:
        ValueError: unknown method.
    """
    if method not in RESCALE_METHODS:
        raise ValueError(f"unknown method {method!r}, allowed: {', '.join(RESCALE_METHODS)}")
    if method != "auto":
        return method
    traced = is_traced(x) if traced is None else traced
    if x.is_cuda:
        return "matmul" if is_exporting() or torch.jit.is_tracing() else "fft"
    # Up to torch 2.12, MKL's FFT fails on an empty batch.
    return "fft" if x.device.type == "cpu" and not traced and x.numel() else "matmul"


def resize_half_spectrum(logits: Tensor, height: int, width: int) -> Tensor:
    """Resizes values on the half spectrum of one map size to that of another.

    Like the released code, it interpolates the unshifted spectrum: bicubic with aligned corners.
    An equal size returns the same values.

    Args:
        logits: Values (C, H', F').
        height: Map height H, in samples.
        width: Map width W, in samples.

    Returns:
        (C, H, W // 2 + 1).
    """
    channels, rows, columns = (fixed_size(n) for n in logits.shape)
    if _is_known_as(height, rows) and _is_known_as(width // 2 + 1, columns):
        return logits
    wide = logits if logits.dtype == torch.float64 else logits.float()
    with without_autocast(logits):
        from_rows, from_columns = _cubic_matrices(wide, rows, columns, height, width)
        # The logits are a right factor, without broadcasting: runtimes fail on other weights.
        by_row = torch.matmul(from_rows, wide.transpose(0, 1).flatten(1))  # H CF'
        by_row = by_row.unflatten(1, (channels, columns)).transpose(0, 1)  # C H F'
        # [None], as in `_even_odd`: otherwise an export folds C and H, with a guard on their sizes.
        return torch.matmul(by_row, from_columns.t()[None]).to(logits.dtype)


def _check_shapes(x: Tensor, gain: Tensor, dims: int) -> None:
    channels, *size = x.shape[-dims - 1 :]
    check_map_size(*size)
    expected = (channels, *size[:-1], size[-1] // 2 + 1)
    if tuple(gain.shape) != expected:
        raise ValueError(f"gain has shape {tuple(gain.shape)}, must be {expected}")


def _rescale_by_fft(x: Tensor, gain: Tensor, dims: int) -> Tensor:
    axes = tuple(range(-dims, 0))
    # In float32: half precision has no FFT on the CPU, and only sizes of powers of two on CUDA.
    wide = x if x.dtype == torch.float64 else x.float()
    with without_autocast(x):
        spectrum = torch.fft.rfftn(wide, dim=axes, norm="ortho") * gain.to(wide.dtype)  # ... C H F
        return torch.fft.irfftn(spectrum, s=x.shape[-dims:], dim=axes, norm="ortho").to(x.dtype)


def _is_known_as(size: int, other: int) -> bool:
    """Whether sizes are equal; False if one is symbolic, so that an export keeps it free.

    A plain comparison would add a guard to the export, which excludes all other sizes.
    """
    return not isinstance(size, Tensor) and statically_known_true(size == other)


def _even_odd(gain: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Returns e and o (C, H, W) of a gain (C, H, F)."""
    mirror, even, odd = _unfolding(gain, *gain.shape[-2:], width)
    mirrored = gain.index_select(-2, mirror)
    return torch.matmul(gain + mirrored, even[None]), torch.matmul(mirrored - gain, odd[None])


@SizeConstant
def _unfolding(
    height: int, columns: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the rows of -u (H,), and half of the matrices that unfold e and o (F, W).

    Column W - v equals column v, with the opposite sign of the odd part. A column that is its own
    conjugate has no odd part. Products, because runtimes copy single columns slowly.
    """
    u, v = torch.arange(height, device=device), torch.arange(width, device=device)
    column = torch.arange(columns, device=device)
    sign = torch.sign(v * (width - 2 * v))
    even = (column[:, None] == torch.minimum(v, width - v)).to(dtype) / 2
    return modulo(height - u, height), even, even * sign


@SizeConstant
def _cubic_matrices(
    rows: int, columns: int, height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns the matrices (H, H') and (F, F') that resize a half spectrum (H', F')."""
    by_row = _cubic_matrix(height, rows, dtype, device)
    return by_row, _cubic_matrix(width // 2 + 1, columns, dtype, device)


def _cubic_matrix(size: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the matrix (size, count) of cubic interpolation with aligned corners.

    It equals `F.interpolate(mode="bicubic", align_corners=True)` along one dimension. Products
    instead of that function, because runtimes lack it or run it slowly.
    """
    index = torch.arange(size, device=device)
    taps = torch.arange(-1, count + 2, device=device)
    last = torch.full((), size - 1, device=device).clamp(min=1)
    # Whole numbers up to the division: exact at any size.
    distance = (index[:, None] * (count - 1) - taps * last).abs().to(dtype) / last.to(dtype)
    near, far = distance.clamp(max=1), distance.clamp(1, 2)  # each polynomial is 0 at its end
    kernel = ((CUBIC + 2) * near - (CUBIC + 3)) * near**2 + 1
    kernel = kernel + CUBIC * (((far - 5) * far + 8) * far - 4)
    # A tap outside takes the value at the border.
    inside = taps.clamp(0, count - 1)[:, None] == torch.arange(count, device=device)
    return torch.matmul(kernel, inside.to(dtype))


@SizeConstant
def _hartley_matrices(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns A_N and A'_N (N, N)."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    index = torch.arange(size, device=device)
    # Reduce the phase to one turn while it is an integer: this is exact at any size.
    phase = modulo(index[:, None] * index, size).to(wide)
    count = torch.full((), size, dtype=wide, device=device)
    angle, scale = phase * (2 * pi / count), 1 / count.sqrt()
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    return (cosine + sine).to(dtype), (cosine - sine).to(dtype)
