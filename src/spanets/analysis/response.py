"""Measures a module's response to single frequencies and pixels, and its receptive field.

Shape legend: `B` images, `C` channels, `H W` map size.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Module = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FrequencyResponse:
    """The gain of a module's linear part for every frequency.

    Attributes:
        gain: Centred (H, W): for a sinusoid of each frequency, the norm of the output at that
            frequency divided by the norm of the input.
        leakage: Centred (H, W): fraction of the output's energy at other frequencies.
    """

    gain: Tensor
    leakage: Tensor

    def bands(self) -> dict[str, float | None]:
        """Returns the mean gain in each third of Nyquist, and the ratio of high to low.

        The keys are "low", "middle", "high" and "high_pass_ratio"; None if a small map has no such
        bins. The distance from the origin is the larger of the two fractions of Nyquist, so that
        every frequency belongs to a band.
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
        # A small map can have an empty band, and JSON has no NaN.
        return {name: None if isnan(value) else value for name, value in table.items()}


# Values in a batch of sinusoids: larger batches cost memory and gain little speed.
_BATCH_VALUES = 2**21


@torch.no_grad()
def frequency_response(
    module: Module,
    point: Tensor,
    channels: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> FrequencyResponse:
    """Measures the gain per frequency of a module's linear part at an operating point.

    For every frequency, the module's Jacobian at `point` is applied to a sinusoid with random phase
    and random channel weights; (u, v) and (-u, -v) share one. The result is exact for linear
    modules: the spectral pooling filter gives its mask, a depth-wise convolution the magnitude of
    its transfer function, except for borders.

    Args:
        module: Function from maps (B, C, H, W) to maps of the same height and width that treats
            each map of the batch independently, as modules do in evaluation mode.
        point: Operating point (1, C, H, W), where the module is linearized.
        channels: Number of random channels that carry a sinusoid at a time; None uses all.
        seed: Random seed of phases and weights.
        batch_size: Sinusoids at a time; None chooses a batch of a few megabytes.

    Returns:
        Gain and leakage, (H, W).

    Raises:
        ValueError: the point is not a single map, or the module changes its height or width.
    """
    if point.ndim != 4 or len(point) != 1:
        raise ValueError(
            f"the operating point has shape {tuple(point.shape)}, must be (1, C, H, W)"
        )
    _, total, height, width = point.shape
    generator = torch.Generator().manual_seed(seed)
    gain = torch.zeros(height, width, dtype=torch.float64)
    leakage = torch.zeros_like(gain)
    pairs = _half_plane(height, width)
    size = batch_size or max(1, _BATCH_VALUES // point.numel())
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        phases = _phases(part, height, width)
        given = _random_waves(phases, total, channels, generator).to(point)  # B C H W
        out = _jvp(module, point.repeat(len(part), 1, 1, 1), given)
        if out.shape[-2:] != point.shape[-2:]:
            raise ValueError(
                f"the module maps {height}x{width} to {out.shape[-2]}x{out.shape[-1]}; a "
                "response needs the same size"
            )
        found = zip(*_at_frequencies(out, given, phases.to(out.device)), strict=True)
        for (u, v), (own, elsewhere) in zip(part, found, strict=True):
            for i, j in ((u, v), (-u, -v)):
                centred = (i + height // 2) % height, (j + width // 2) % width
                gain[centred], leakage[centred] = own, elsewhere
    return FrequencyResponse(gain, leakage)


def _half_plane(height: int, width: int) -> list[tuple[int, int]]:
    """Returns one (u, v) of each conjugate pair of bins."""
    bins = [(u, v) for u in range(height) for v in range(width)]
    return [(u, v) for u, v in bins if (u, v) <= (-u % height, -v % width)]


def _phases(pairs: list[tuple[int, int]], height: int, width: int) -> Tensor:
    """Returns the phase of each frequency at each sample, in radians: (B, H, W)."""
    u, v = torch.tensor(pairs, dtype=torch.float64).T[:, :, None]  # B 1
    rows = u * torch.arange(height) / height  # B H
    columns = v * torch.arange(width) / width  # B W
    return 2 * torch.pi * (rows[:, :, None] + columns[:, None, :])


def _random_waves(
    phases: Tensor, total: int, kept: int | None, generator: torch.Generator
) -> Tensor:
    """Returns real unit-norm sinusoids with random shifts, times random weights: (B, C, H, W)."""
    given = []
    for phase in phases:
        shift = 2 * torch.pi * torch.rand((), generator=generator, dtype=torch.float64)
        # A frequency that is its own conjugate has no sine; a random shift could make it vanish.
        wave = phase.cos() if phase.sin().abs().max() < 1e-6 else (phase + shift).cos()
        weights = torch.randn(total, generator=generator, dtype=torch.float64)
        if kept is not None:
            weights[torch.randperm(total, generator=generator)[kept:]] = 0
        given.append(weights[:, None, None] * wave / wave.norm())
    return torch.stack(given)


def _at_frequencies(out: Tensor, given: Tensor, phases: Tensor) -> tuple[list[float], list[float]]:
    """Returns each sinusoid's gain at its frequency, and the energy fraction at others."""
    wide = out.double()
    own = torch.zeros(len(out), dtype=torch.float64, device=out.device)
    for wave in (phases.cos(), phases.sin()):
        norm = wave.square().sum((1, 2))  # the sine is 0 for a frequency that is its own conjugate
        inside = torch.einsum("bchw,bhw->bc", wide, wave).square().sum(1)
        own += torch.where(norm > 1e-6, inside / norm, 0.0)
    whole, before = wide.square().sum((1, 2, 3)), given.double().square().sum((1, 2, 3))
    elsewhere = torch.where(whole > 0, 1 - own / whole, 0.0)
    return (own / before).sqrt().tolist(), elsewhere.tolist()


def effective_receptive_field(module: Module, images: Tensor) -> Tensor:
    """Returns the influence of each input pixel on the output's centre, mean over images: (H, W).

    This is the gradient of the centre, summed over output channels; its magnitude is summed over
    input channels (Luo et al., NeurIPS 2016) and scaled to a maximum of 1.

    Args:
        module: Function from maps (B, C, H, W) to maps (B, D, H', W').
        images: Images (B, C, H, W).

    Raises:
        ValueError: the output is not a map.
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
        module: Function from maps (1, C, H, W) to maps (1, D, H', W').
        point: Operating point (1, C, H, W), where the module is linearized.
        channel: Channel of the pixel.
    """
    impulse = torch.zeros_like(point)
    impulse[0, channel, point.shape[2] // 2, point.shape[3] // 2] = 1
    return _jvp(module, point, impulse)[0]


@torch.no_grad()
def impulse_magnitude(module: Module, point: Tensor, channels: int = 16) -> Tensor:
    """Returns the magnitude of the impulse response of a module's linear part: (H', W').

    This is the norm of `impulse_response` over output channels, averaged over input channels.

    Args:
        module: See `frequency_response`; but the module may change the size of its maps.
        point: Operating point (1, C, H, W), where the module is linearized.
        channels: Largest number of input channels, evenly spread.
    """
    count = min(channels, point.shape[1])
    impulses = torch.zeros_like(point).repeat(count, 1, 1, 1)
    for row, channel in enumerate(torch.linspace(0, point.shape[1] - 1, count).long().tolist()):
        impulses[row, channel, point.shape[2] // 2, point.shape[3] // 2] = 1
    return _jvp(module, point.repeat(count, 1, 1, 1), impulses).norm(dim=1).mean(0)


def _jvp(module: Module, point: Tensor, direction: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch's forward-mode rules still use torch.jit.script, which is deprecated.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        # Fused attention does not support forward mode.
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.jvp(module, (point,), (direction,))[1]
