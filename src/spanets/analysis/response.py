"""How a module answers to single frequencies: its gain, and what it needs of the image.

Shape legend: `B` images, `C` channels, `H W` map size.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import isnan, sqrt

import torch
from torch import Tensor

Module = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FrequencyResponse:
    """The gain of a module's linear part for every frequency.

    Attributes:
        gain: (H, W), centred: for a wave of each frequency, the norm of what comes out at that
            frequency, relative to the norm that went in.
        leakage: (H, W), centred: the share of the output's energy at other frequencies.
    """

    gain: Tensor
    leakage: Tensor

    def bands(self) -> dict[str, float | None]:
        """Returns the mean gain in the thirds of Nyquist, and high over low.

        Keys: "low", "middle", "high", "high_pass_ratio"; None where a small map has no such bins.
        The distance from the origin is the larger of the two fractions of Nyquist, so that all
        frequencies belong to a band.
        """
        height, width = self.gain.shape
        u = (torch.arange(height) - height // 2).abs() / (height / 2)
        v = (torch.arange(width) - width // 2).abs() / (width / 2)
        distance = torch.maximum(u[:, None], v[None, :]).to(self.gain.device)
        edges = {"low": (-1.0, 1 / 3), "middle": (1 / 3, 2 / 3), "high": (2 / 3, 1.0)}
        table = {
            name: self.gain[(distance > low) & (distance <= high)].mean().item()
            for name, (low, high) in edges.items()
        }
        table["high_pass_ratio"] = table["high"] / table["low"] if table["low"] else float("nan")
        # A map of few bins has none in a band, and JSON has no NaN.
        return {name: None if isnan(value) else value for name, value in table.items()}


@torch.no_grad()
def frequency_response(
    module: Module, point: Tensor, channels: int | None = None, seed: int = 0
) -> FrequencyResponse:
    """Measures the gain per frequency of a module's linear part at an operating point.

    For every frequency a wave with random phase and random weights on the channels goes through the
    module's Jacobian at `point`. Exact for linear modules: the spectral pooling filter gives its
    mask, a depth-wise convolution the modulus of its transfer function, but for the borders.

    Args:
        module: Maps (1, C, H, W) to maps of the same height and width.
        point: Where the module is linearized, (1, C, H, W).
        channels: So many random channels carry a wave at a time; None takes all.
        seed: Of phases and weights.

    Returns:
        Gain and leakage, (H, W).

    Raises:
        ValueError: the point is no single map, or the module changes its height or width.
    """
    if point.ndim != 4 or len(point) != 1:
        raise ValueError(
            f"the operating point has shape {tuple(point.shape)}, must be (1, C, H, W)"
        )
    _, total, height, width = point.shape
    generator = torch.Generator().manual_seed(seed)
    gain = torch.zeros(height, width, dtype=torch.float64)
    leakage = torch.zeros_like(gain)
    for u in range(height):
        for v in range(width):
            wave = _wave(u, v, height, width, generator).to(point)
            weights = torch.randn(total, generator=generator).to(point)
            if channels is not None:
                weights[torch.randperm(total, generator=generator)[channels:]] = 0
            given = weights[None, :, None, None] * wave
            out = _jvp(module, point, given)
            if out.shape[-2:] != point.shape[-2:]:
                raise ValueError(
                    f"the module maps {height}x{width} to {out.shape[-2]}x{out.shape[-1]}; a "
                    "response needs the same size"
                )
            i, j = (u + height // 2) % height, (v + width // 2) % width
            gain[i, j], leakage[i, j] = _at_frequency(out, given, u, v)
    return FrequencyResponse(gain, leakage)


def _wave(u: int, v: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A real wave of frequency (u, v), of unit norm: (H, W)."""
    rows = torch.arange(height, dtype=torch.float64)[:, None] * (u / height)
    columns = torch.arange(width, dtype=torch.float64)[None, :] * (v / width)
    own_conjugate = (2 * u) % height == 0 and (2 * v) % width == 0
    phase = 0.0 if own_conjugate else torch.rand((), generator=generator).item()
    wave = (2 * torch.pi * (rows + columns + phase)).cos()
    return wave / wave.norm()


def _at_frequency(out: Tensor, given: Tensor, u: int, v: int) -> tuple[float, float]:
    """Gain at ±(u, v), and the share of the output's energy elsewhere."""
    height, width = out.shape[-2:]
    spectrum = torch.fft.fft2(out.double(), norm="ortho").abs().square().sum((0, 1))  # H W
    own = spectrum[u, v].item()
    if ((2 * u) % height, (2 * v) % width) != (0, 0):
        own += spectrum[-u % height, -v % width].item()
    whole, before = spectrum.sum().item(), given.double().square().sum().item()
    return sqrt(own / before), (1 - own / whole if whole else 0.0)


def fourier_basis(u: int, v: int, height: int, width: int) -> Tensor:
    """Returns the real, unit-norm image of frequency (u, v) of Yin et al., 2019: (H, W).

    Args:
        u: Row frequency, in bins from the origin; may be negative.
        v: Column frequency.
        height: In pixels.
        width: In pixels.
    """
    spectrum = torch.zeros(height, width, dtype=torch.complex128)
    spectrum[u % height, v % width] += 1
    spectrum[-u % height, -v % width] += 1
    image = torch.fft.ifft2(spectrum).real
    return image / image.norm()


def perturb(
    images: Tensor, u: int, v: int, epsilon: float, generator: torch.Generator | None = None
) -> Tensor:
    """Adds a wave of norm ε to each image, its sign random for each image and channel.

    `x̃ = x + s ε U_uv` (Yin et al., NeurIPS 2019). Add it before the images are standardized.

    Args:
        images: (B, C, H, W), in pixel units.
        u: Row frequency, in bins.
        v: Column frequency, in bins.
        epsilon: L2 norm of what is added to a channel, in pixel units.
        generator: Of the signs.
    """
    wave = fourier_basis(u, v, *images.shape[-2:]).to(images)
    signs = torch.randint(0, 2, images.shape[:2], generator=generator) * 2 - 1
    return images + epsilon * signs.to(images)[:, :, None, None] * wave


def band_pass(images: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Keeps the frequencies whose distance from the origin lies in a band.

    Args:
        images: (..., H, W), real.
        low: Lower edge, as a fraction of Nyquist; the origin is kept where it is 0.
        high: Upper edge, included; the corners of the spectrum lie at √2.

    Returns:
        The shape and type of the images.
    """
    height, width = images.shape[-2:]
    u = torch.fft.fftfreq(height, device=images.device) * 2
    v = torch.fft.rfftfreq(width, device=images.device) * 2
    distance = torch.hypot(u[:, None], v[None, :])
    kept = (distance >= low) & (distance <= high)
    spectrum = torch.fft.rfft2(images.float()) * kept
    return torch.fft.irfft2(spectrum, s=(height, width)).to(images.dtype)


def effective_receptive_field(module: Module, images: Tensor) -> Tensor:
    """Returns how much each input pixel moves the centre of the output, mean over images: (H, W).

    The gradient of the centre's sum over channels, its magnitude summed over input channels (Luo et
    al., NeurIPS 2016), scaled to a largest value of 1.

    Args:
        module: Maps (B, C, H, W) to maps (B, D, H', W').
        images: (B, C, H, W).

    Raises:
        ValueError: the output is no map.
    """
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        out = module(x)
        if out.ndim != 4:
            raise ValueError(f"the output has shape {tuple(out.shape)}, must be (B, D, H, W)")
        (gradient,) = torch.autograd.grad(out[:, :, out.shape[2] // 2, out.shape[3] // 2].sum(), x)
    field = gradient.abs().sum(1).mean(0)
    return field / field.max().clamp(min=torch.finfo(field.dtype).tiny)


def impulse_response(module: Module, point: Tensor, channel: int = 0) -> Tensor:
    """Returns the response of a module's linear part to a single pixel in the middle: (D, H', W').

    Args:
        module: Maps (1, C, H, W) to maps (1, D, H', W').
        point: Where the module is linearized, (1, C, H, W).
        channel: Of the pixel.
    """
    impulse = torch.zeros_like(point)
    impulse[0, channel, point.shape[2] // 2, point.shape[3] // 2] = 1
    return _jvp(module, point, impulse)[0]


def _jvp(module: Module, point: Tensor, direction: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch's forward-mode rules still come from its scripting compiler, which is deprecated.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        return torch.func.jvp(module, (point,), (direction,))[1]
