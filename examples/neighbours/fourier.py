"""Mixers in the frequency domain: GFNet's, DFFormer's, AFNO, and fast Fourier convolution.

Shape legend: `B` images, `C` channels, `H W` map size, `F = W // 2 + 1` half-spectrum columns.
F and F⁻¹ are the orthonormal real DFT over (H, W) and its inverse.
"""

import torch
import torch.nn.functional as F
from timm.models.metaformer import StarReLU
from torch import Tensor, nn

from spanets.spectral import resize_half_spectrum
from spanets.spectral.tracing import without_autocast

INIT_STD = 0.02


def transform(x: Tensor) -> Tensor:
    """Returns the half spectrum of (B, C, H, W) as real and imaginary part: (2, B, C, H, F)."""
    with without_autocast(x):
        spectrum = torch.fft.rfft2(_wide(x), dim=(-2, -1), norm="ortho")
    return torch.stack([spectrum.real, spectrum.imag]).to(x.dtype)


def inverse(parts: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the maps (B, C, H, W) of a half spectrum, the inverse of `transform`."""
    with without_autocast(parts):
        spectrum = torch.complex(*_wide(parts).unbind(0))
        maps = torch.fft.irfft2(spectrum, s=size, dim=(-2, -1), norm="ortho")
    return maps.to(parts.dtype)


def filter_maps(x: Tensor, kernel: Tensor) -> Tensor:
    """Returns `F⁻¹(K ⊙ F x)` for maps (B, C, H, W) and a complex K (2, ..., C, H, F)."""
    wide, size = _wide(x), x.shape[-2:]
    with without_autocast(x):
        spectrum = torch.fft.rfft2(wide, dim=(-2, -1), norm="ortho")
        spectrum = spectrum * torch.complex(*kernel.to(wide.dtype).unbind(0))
        return torch.fft.irfft2(spectrum, s=size, dim=(-2, -1), norm="ortho").to(x.dtype)


def fit_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes a complex kernel (2, C, H', F') to another map size, by bicubic interpolation."""
    return resize_half_spectrum(kernel.flatten(0, 1), *size).unflatten(0, (2, -1))


def _wide(x: Tensor) -> Tensor:
    # Half precision has no FFT on the CPU, and only sizes of powers of two on CUDA.
    return x if x.dtype == torch.float64 else x.float()


class GlobalFilter(nn.Module):
    """Multiplies the spectrum of each map by a learnt complex filter (GFNet).

    `y = F⁻¹(K ⊙ F x)`, the circular convolution with a kernel of the map's size. NCHW in and out;
    for a map of another size the filter is interpolated.

    Rao, Zhao, Zhu, Lu and Zhou, Global Filter Networks for Image Classification, NeurIPS 2021,
    arXiv 2107.00645, section 3.2.

    Args:
        dim: Channels C.
        map_size: (H, W) that the filter is made for.
    """

    def __init__(self, dim: int, map_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = map_size
        self.kernel = nn.Parameter(torch.empty(2, dim, height, width // 2 + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the filter."""
        nn.init.normal_(self.kernel, std=INIT_STD)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        return filter_maps(x, fit_kernel(self.kernel, x.shape[-2:]))


class DynamicFilter(nn.Module):
    """Filters each map by its own mixture of a few learnt filters (DFFormer).

    `y = W_2 F⁻¹(K(x) ⊙ F a(W_1 x))`, where channel c of K(x) is `Σ_n s_{n,c}(x) K_n` and the
    weights s are a softmax over n of an MLP of the mean of x. a is StarReLU. NCHW in and out; for a
    map of another size the filters are interpolated.

    Tatsunami and Taki, FFT-based Dynamic Token Mixer for Vision, AAAI 2024, arXiv 2303.03932.

    Args:
        dim: Channels C, at least 4.
        map_size: (H, W) that the filters are made for.
        filters: Number N of the filters K_n.
        expansion: Ratio of the filtered channels to C.
    """

    def __init__(
        self, dim: int, map_size: tuple[int, int], filters: int = 4, expansion: int = 2
    ) -> None:
        super().__init__()
        (height, width), hidden = map_size, expansion * dim
        self.fc1 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.act = StarReLU()
        self.kernels = nn.Parameter(torch.empty(2, filters, height, width // 2 + 1))
        self.router = nn.Sequential(
            nn.Linear(dim, dim // 4, bias=False),
            StarReLU(),
            nn.Linear(dim // 4, filters * hidden, bias=False),
        )
        self.fc2 = nn.Conv2d(hidden, dim, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the filters."""
        nn.init.normal_(self.kernels, std=INIT_STD)

    def weights(self, x: Tensor) -> Tensor:
        """Returns the weights s of the filters for maps (B, C, H, W): (B, N, channels)."""
        filters = self.kernels.shape[1]
        return self.router(x.mean((2, 3))).unflatten(1, (filters, -1)).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        kernels = fit_kernel(self.kernels, x.shape[-2:])  # 2 N H F
        kernel = torch.einsum("bnc,knhf->kbchf", self.weights(x), kernels)
        return self.fc2(filter_maps(self.act(self.fc1(x)), kernel))


class ComplexBlocks(nn.Module):
    """A complex linear map of each block of channels: `W z + b` with a block-diagonal W.

    It takes and returns real and imaginary parts (2, B, C, H, F). Two real convolutions hold the
    parts of W, so that counters and exporters know every operation.

    Args:
        dim: Channels C, divisible by blocks.
        blocks: Number of blocks.
    """

    def __init__(self, dim: int, blocks: int) -> None:
        super().__init__()
        self.real = nn.Conv2d(dim, dim, 1, groups=blocks, bias=False)
        self.imaginary = nn.Conv2d(dim, dim, 1, groups=blocks, bias=False)
        self.bias = nn.Parameter(torch.zeros(2, dim))

    def reset_parameters(self) -> None:
        """Sets the bias to 0; the convolutions have their own initialisation."""
        nn.init.zeros_(self.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Maps (2, B, C, H, F) to the same shape."""
        x, y = z.unbind(0)
        real = self.real(x) - self.imaginary(y)
        imaginary = self.real(y) + self.imaginary(x)
        return torch.stack([real, imaginary]) + self.bias[:, None, :, None, None]


class AFNO(nn.Module):
    """Applies one small MLP to every frequency, and removes what is small (AFNO).

    `y = x + F⁻¹ S(W_2 a(W_1 F x + b_1) + b_2)` with complex, block-diagonal W. a is ReLU and S is
    soft-shrinkage, both of the real and of the imaginary part. NCHW in and out, any size.

    Guibas, Mardani, Li, Tao, Anandkumar and Catanzaro, Adaptive Fourier Neural Operators, ICLR
    2022, arXiv 2111.13587.

    Args:
        dim: Channels C, divisible by blocks.
        blocks: Number of diagonal blocks.
        threshold: Threshold of the soft-shrinkage.

    Raises:
        ValueError: dim is not divisible by blocks.
    """

    def __init__(self, dim: int, blocks: int = 4, threshold: float = 0.01) -> None:
        super().__init__()
        if dim % blocks:
            raise ValueError(f"dim is {dim}, must be divisible by blocks, {blocks}")
        self.threshold = threshold
        self.layer1 = ComplexBlocks(dim, blocks)
        self.act: nn.Module = nn.ReLU()
        self.layer2 = ComplexBlocks(dim, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        z = self.layer2(self.act(self.layer1(transform(x))))
        return x + inverse(F.softshrink(z, self.threshold), x.shape[-2:])


class FourierUnit(nn.Module):
    """A convolution of one tap over the spectrum: `F⁻¹ ReLU(BN(W (Re, Im)(F x)))`.

    W mixes the real and imaginary parts of all channels at each frequency. NCHW in and out.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = _conv_norm_act(2 * dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        parts = self.conv(torch.cat(list(transform(x)), 1))  # B 2C H F
        return inverse(torch.stack(parts.chunk(2, 1)), x.shape[-2:])


class SpectralTransform(nn.Module):
    """FFC's global path: `W_2 (h + FourierUnit(h))` with `h = ReLU(BN(W_1 x))` of C / 2 channels.

    The optional unit over quarters of the map is left out. NCHW in and out, any size.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduce = _conv_norm_act(dim, dim // 2)
        self.unit = FourierUnit(dim // 2)
        self.expand = nn.Conv2d(dim // 2, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        x = self.reduce(x)
        return self.expand(x + self.unit(x))


class FastFourierConv(nn.Module):
    """Fast Fourier convolution: a local and a global group of channels that exchange (FFC).

    `y_l = w_ll * x_l + w_gl * x_g`, `y_g = w_lg * x_l + f(x_g)`, where f is `SpectralTransform`.
    NCHW in and out, any size.

    Chi, Jiang and Mu, Fast Fourier Convolution, NeurIPS 2020, section 3.

    Args:
        dim: Channels C, divisible by 4; half of them are global.
        kernel_size: Kernel size of the three convolutions, odd.

    Raises:
        ValueError: dim is not divisible by 4.
    """

    def __init__(self, dim: int, kernel_size: int = 3) -> None:
        super().__init__()
        if dim % 4:
            raise ValueError(f"dim is {dim}, must be divisible by 4")
        half, pad = dim // 2, kernel_size // 2
        self.local_local = nn.Conv2d(half, half, kernel_size, padding=pad)
        self.global_local = nn.Conv2d(half, half, kernel_size, padding=pad)
        self.local_global = nn.Conv2d(half, half, kernel_size, padding=pad)
        self.global_global = SpectralTransform(half)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        near, far = x.chunk(2, 1)
        local = self.local_local(near) + self.global_local(far)
        return torch.cat([local, self.local_global(near) + self.global_global(far)], 1)


def _conv_norm_act(dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
