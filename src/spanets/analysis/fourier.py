"""Spectra of maps: relative log amplitude, spectrum maps, and their running means over data sets.

Conventions: `A = log(|F x| + ε)` with an unnormalized transform, the natural logarithm and
ε = 1e-6. The mean over channels follows the logarithm. Spectra are centred, with the origin at
(H // 2, W // 2). Frequencies are fractions of Nyquist (half a cycle per sample).

Shape legend: `B` images, `C` channels, `H W` map size, `P` samples of a profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EPSILON = 1e-6
PROFILES = ("diagonal", "radial")

Array = NDArray[np.float64]


def log_amplitude(maps: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Returns `log(|F x| + ε)`, mean over channels, centred: (B, C, H, W) to (B, H, W).

    For half precision it computes in float32.
    """
    wide = maps if maps.dtype == torch.float64 else maps.float()
    # A real map's spectrum is symmetric: |F(-u, -v)| = |F(u, v)|. So half of it is enough.
    half = torch.fft.rfft2(wide).abs().add_(epsilon).log_().mean(1)  # B H W//2+1
    return torch.fft.fftshift(complete_spectrum(half, maps.shape[-1]), dim=(-2, -1))


def complete_spectrum(half: Tensor, width: int) -> Tensor:
    """Completes half of an even spectrum, unshifted: (..., H, W // 2 + 1) to (..., H, W)."""
    rest = width - half.shape[-1]
    mirrored = half[..., 1 : rest + 1].flip(-1, -2).roll(1, -2)
    return torch.cat([half, mirrored], -1)


def profile(spectrum: Tensor, kind: str = "diagonal") -> Tensor:
    """Returns profiles of centred spectra, from the origin outward: (..., H, W) to (..., P).

    Args:
        spectrum: Spectrum centred at (H // 2, W // 2).
        kind: "diagonal" for the main diagonal from the origin, as published, only of square
            spectra; "radial" for means over rings one bin (of the shorter side) wide, of any shape.

    Raises:
        ValueError: unknown kind, or the diagonal of a spectrum that is not square.
    """
    height, width = spectrum.shape[-2:]
    if kind == "diagonal":
        if height != width:
            raise ValueError(f"a {height}x{width} spectrum has no diagonal; use 'radial'")
        return spectrum.diagonal(dim1=-2, dim2=-1)[..., height // 2 :]
    if kind != "radial":
        raise ValueError(f"profile is {kind!r}, allowed: {', '.join(PROFILES)}")
    ring = _rings(height, width).to(spectrum.device)
    count = min(height, width) // 2 + 1
    inside = ring < count
    flat = spectrum.flatten(-2)[..., inside.flatten()]
    index = ring[inside]
    sums = spectrum.new_zeros(*spectrum.shape[:-2], count).index_add_(-1, index, flat)
    return sums / torch.bincount(index, minlength=count)


def _rings(height: int, width: int) -> Tensor:
    """Returns the ring index of every bin of a centred spectrum: (H, W)."""
    shorter = min(height, width)
    u = (torch.arange(height) - height // 2) * (shorter / height)
    v = (torch.arange(width) - width // 2) * (shorter / width)
    return torch.hypot(u[:, None], v[None, :]).round().long()


def profile_frequencies(
    height: int, width: int, kind: str = "diagonal", published: bool = False
) -> Array:
    """Returns the frequencies of a profile's samples, as fractions of Nyquist: (P,).

    Args:
        height: Map height, in samples.
        width: Map width, in samples.
        kind: See `profile`.
        published: Whether to stretch the axis so that the last sample is at 1, as in published
            plots. On the diagonal of an even size it is really at (H / 2 - 1) / (H / 2).
    """
    shorter = min(height, width)
    count = shorter - shorter // 2 if kind == "diagonal" else shorter // 2 + 1
    exact = np.arange(count) / (shorter / 2)
    return exact / exact[-1] if published and count > 1 else exact


def relative_log_amplitude(maps: Tensor, kind: str = "diagonal") -> Tensor:
    """Returns the profile of each image's log amplitude minus its first value: (B, P).

    Park & Kim, ICLR 2022, Figure 2; SPANet, Figure 2.

    Args:
        maps: Maps (B, C, H, W).
        kind: See `profile`.
    """
    values = profile(log_amplitude(maps), kind)
    return values - values[..., :1]


def spectrum_map(maps: Tensor) -> Tensor:
    """Returns the mean centred log amplitude of maps (SPANet, Figure 1): (B, C, H, W) to (H, W)."""
    return log_amplitude(maps).mean(0)


@dataclass
class RunningMoments:
    """Running mean and variance of arrays, batch by batch (Chan et al., 1983).

    Attributes:
        count: Number of samples so far.
        mean: Mean of the samples.
        squares: Sum of squared deviations from the mean.
    """

    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, samples: Tensor) -> None:
        """Adds a batch (B, ...)."""
        values = samples.double().cpu().numpy()
        count, mean = len(values), values.mean(0)
        total = self.count + count
        difference = mean - self.mean
        self.squares = (
            self.squares
            + ((values - mean) ** 2).sum(0)
            + difference**2 * (self.count * count / total)
        )
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def state(self) -> dict[str, Any]:
        """Returns plain values for `restore`."""
        return {key: np.asarray(value).tolist() for key, value in vars(self).items()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """Returns the moments saved by `state`."""
        return cls(state["count"], np.asarray(state["mean"]), np.asarray(state["squares"]))

    @property
    def deviation(self) -> Any:
        """Standard deviation over the samples; 0 for a single one."""
        return np.sqrt(self.squares / max(1, self.count - 1))


@dataclass
class SpectrumStatistics:
    """A sink for `capture.stream`: relative log amplitude and spectrum maps of every module.

    It stores one mean and one deviation per module, independent of the number of images.

    Attributes:
        kind: See `profile`.
        profiles: Moments of the relative log amplitude over images, by module.
        spectra: Moments of the centred log amplitude over images, by module.
        sizes: H and W of the maps, by module.
    """

    kind: str = "diagonal"
    profiles: dict[str, RunningMoments] = field(default_factory=dict)
    spectra: dict[str, RunningMoments] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __call__(self, name: str, maps: Tensor) -> None:
        """Adds maps (B, C, H, W) of a module.

        Raises:
            ValueError: the size of the maps differs from earlier ones.
        """
        size = (maps.shape[-2], maps.shape[-1])
        if self.sizes.setdefault(name, size) != size:
            raise ValueError(
                f"{name}: maps of {size[0]}x{size[1]} after {self.sizes[name][0]}x"
                f"{self.sizes[name][1]}; give images of one size"
            )
        amplitude = log_amplitude(maps)
        values = profile(amplitude, self.kind)
        self.profiles.setdefault(name, RunningMoments()).add(values - values[..., :1])
        self.spectra.setdefault(name, RunningMoments()).add(amplitude)

    def results(self) -> dict[str, dict[str, Any]]:
        """Returns arrays by module, in the order of the network.

        Each module has "frequencies" (P,), as fractions of Nyquist; "mean", "low" and "high" (P,),
        the mean over images with its 95 % band; "last", the last sample of the mean; "spectrum"
        (H, W); and "images", their number.
        """
        table = {}
        for name, moments in self.profiles.items():
            band = 1.96 * moments.deviation / np.sqrt(moments.count)
            table[name] = {
                "frequencies": profile_frequencies(*self.sizes[name], self.kind),
                "mean": moments.mean,
                "low": moments.mean - band,
                "high": moments.mean + band,
                "last": float(moments.mean[-1]),
                "spectrum": self.spectra[name].mean,
                "images": moments.count,
            }
        return table
