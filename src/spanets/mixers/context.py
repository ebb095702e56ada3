"""The spectrally pooled context of SPAM, as a function and as a module.

Shape legend: `B` images, `C` channels, `H W` map size, `N` gates, `K` low-frequency basis
functions.
"""

from collections.abc import Sequence
from functools import reduce
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from spanets import kernels
from spanets.layers import pointwise_conv
from spanets.mixers.checks import check_choice
from spanets.spectral import (
    RING,
    Balance,
    basis_gain,
    basis_size,
    check_radius,
    low_frequency_basis,
    resolve_method,
    spectral_pool,
)
from spanets.spectral.tracing import is_channels_last

BALANCES = (0.7, 0.8, 0.9)
"""λ of the three gates (SPANet, section 4.1)."""

AGGREGATIONS = ("sum", "hadamard")
LEARN_BALANCE = (None, "gate", "channel")


def pooled_conv(
    x: Tensor,
    low_weight: Tensor,
    high_weight: Tensor,
    bias: Tensor,
    radius: float,
    gain: Tensor,
    closed: bool,
) -> Tensor:
    """Computes `W SPF(x) + b` as a 1×1 convolution plus a rank-K term, without filtering x.

    `(W diag(1 - λ)) x + b + (W ((x Φᵀ) ⊙ g)) Φ` (mathematics: the filter is linear and acts on
    space, W on channels, so they commute but for the per-channel λ). The products follow the
    layout of x: across it they would be read and written piece by piece, 7 % of a training step and
    of compiled inference.

    Args:
        x: (B, C, H, W).
        low_weight: W, (D, C).
        high_weight: `W diag(1 - λ)`, (D, C).
        bias: (D,).
        radius: Radius of the low-frequency disc, in frequency bins.
        gain: g of `basis_gain`, (C, K).
        closed: Of `low_frequency_basis`.

    Returns:
        (B, D, H, W).
    """
    basis = low_frequency_basis(x, radius, closed)  # K HW
    high = F.conv2d(x, high_weight[:, :, None, None], bias)  # B D H W
    modes = basis.to(high.dtype).expand(x.shape[0], -1, -1)  # B K HW
    # Not in place, though that would save a pass over memory: recorders that know nothing of
    # aliases (ONNX's older exporter, PT2E's quantizers) lose what is added to a view. And by `t`:
    # the older exporter has no `mT`.
    if is_channels_last(x):
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)  # B HW C
        low = torch.matmul(basis, tokens) * gain.to(x.dtype).t()  # B K C
        low = F.linear(low, low_weight).to(high.dtype)  # B K D
        maps = high.permute(0, 2, 3, 1).flatten(1, 2)  # B HW D
        maps = torch.baddbmm(maps, modes.transpose(1, 2), low)
        return maps.unflatten(1, high.shape[2:]).permute(0, 3, 1, 2)
    low = torch.matmul(x.flatten(2), basis.t()) * gain.to(x.dtype)  # B C K
    low = torch.matmul(low_weight, low).to(high.dtype)  # B D K
    return torch.baddbmm(high.flatten(2), low, modes).unflatten(2, high.shape[2:])


def modulate(
    x: Tensor,
    low_weight: Tensor,
    high_weight: Tensor,
    bias: Tensor,
    radius: float,
    gain: Tensor,
    closed: bool,
) -> Tensor:
    """Computes `x ⊙ pooled_conv(x)`; on a GPU the sum and the product are one kernel.

    Args and result are those of `pooled_conv`.
    """
    if not kernels.takes(x) or basis_size(radius, closed) > kernels.MAX_MODES:
        return x * pooled_conv(x, low_weight, high_weight, bias, radius, gain, closed)
    waves, low = low_frequencies(x, low_weight, radius, gain, closed)
    high = pointwise_conv(x, high_weight[:, :, None, None], bias)
    return kernels.modulate(x, high, waves, low)


def modulated_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    low_weight: Tensor,
    high_weight: Tensor,
    high_bias: Tensor,
    radius: float,
    gain: Tensor,
    closed: bool,
) -> Tensor:
    """Computes `V modulate(x) + c`; on a GPU the modulated maps are not kept for the gradient.

    Args:
        x: (B, C, H, W).
        weight: V, (D, C, 1, 1).
        bias: c, (D,).
        low_weight, high_weight, high_bias, radius, gain, closed: Of `pooled_conv`.

    Returns:
        (B, D, H, W).
    """
    if not kernels.takes_with_product(x) or basis_size(radius, closed) > kernels.MAX_MODES:
        maps = modulate(x, low_weight, high_weight, high_bias, radius, gain, closed)
        return pointwise_conv(maps, weight, bias)
    waves, low = low_frequencies(x, low_weight, radius, gain, closed)
    high = pointwise_conv(x, high_weight[:, :, None, None], high_bias)
    weight = weight.flatten(1).to(x.dtype)
    return kernels.modulated_linear(x, high, waves, low, weight, bias.to(x.dtype))


def low_frequencies(
    x: Tensor, low_weight: Tensor, radius: float, gain: Tensor, closed: bool
) -> tuple[Tensor, Tensor]:
    """Returns the low-rank term of `pooled_conv` as the factors that the kernels multiply.

    Args are those of `pooled_conv`.

    Returns:
        The basis (H·W, K) and its weights (B, K, D). K has rows of zeros up to a multiple of 8:
        matrix units load 16 bytes at a time.
    """
    pad = (0, -basis_size(radius, closed) % 8)  # never none: K is odd, so that both are copied
    waves = F.pad(low_frequency_basis(x, radius, closed).mT, pad)  # HW K
    gain = F.pad(gain.to(x.dtype), pad)  # C K
    if kernels.takes_for_inference(x):
        low = kernels.project(x, waves, gain)  # B K C
    else:
        low = kernels.project(x, waves) * gain.mT
    return waves, torch.matmul(low, low_weight.mT).to(x.dtype)  # B K D


# Leaves of torch.fx: they compute with sizes, which a symbolic trace has no numbers for.
fx.wrap("basis_gain")
fx.wrap("pointwise_conv")
fx.wrap("pooled_conv")
fx.wrap("spectral_pool")


class SpectralContext(nn.Module):
    """The aggregated context of SPAM: `Σ_i (W_i SPF_{λ_i}(x_i) + b_i)` (SPANet, Eq. 19).

    The channels are split into N gates as `torch.chunk` splits; gate i is filtered with balance
    λ_i and projected from its own channels to all C. In the sum the projections are one (C, C)
    matrix and λ is one number a channel. The Hadamard product (Table 5) keeps them apart.

    Args:
        dim: Channels C.
        radius: Radius of the low-frequency disc, in frequency bins.
        balances: λ_i, one a gate.
        ring: ρ at distance exactly the radius; None takes `1 - λ` (Eq. 16 and 18).
        aggregation: "sum" or "hadamard".
        spectral_filter: False leaves the filter out (Table 5, first row).
        method: Of `spectral_pool`: "auto", "basis" or "fft".
        learn_balance: None, or λ learnt through a sigmoid per "gate" or per "channel".
        learn_ring: Learn ρ likewise; needs `learn_balance` and a ring.
    """

    high_weight: Tensor | None
    gain: Tensor | None

    def __init__(
        self,
        dim: int,
        radius: float = 2,
        balances: Sequence[float] = BALANCES,
        ring: float | None = RING,
        aggregation: str = "sum",
        spectral_filter: bool = True,
        method: str = "auto",
        learn_balance: str | None = None,
        learn_ring: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("aggregation", aggregation, AGGREGATIONS)
        check_choice("learn_balance", learn_balance, LEARN_BALANCE)
        check_radius(radius)
        if not 0 < len(balances) <= dim:
            raise ValueError(f"{len(balances)} balances for {dim} channels, allowed: 1 to {dim}")
        if learn_ring and (learn_balance is None or ring is None):
            raise ValueError("learn_ring needs learn_balance and a ring value to start from")
        self.radius = radius
        self.balances = tuple(balances)
        self.ring = ring
        self.aggregation = aggregation
        self.learn_balance = learn_balance
        self.spectral_filter = spectral_filter
        self.method = resolve_method(method, radius, ring)
        self.gate_sizes = chunk_sizes(dim, len(balances))
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(dim, dim, **factory))
        self.bias = nn.Parameter(torch.empty(len(balances), dim, **factory))
        learnt = {None: 0, "gate": len(balances), "channel": dim}[learn_balance]
        if learnt and spectral_filter:
            self.balance_logit = nn.Parameter(torch.empty(learnt, **factory))
        if learn_ring and spectral_filter:
            self.ring_logit = nn.Parameter(torch.empty(learnt, **factory))
        self.register_buffer("high_weight", None)
        self.register_buffer("gain", None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises each gate's projection as a 1×1 convolution from that gate's channels."""
        gates = zip(self.weight.split(self.gate_sizes, 1), self.bias, strict=True)
        for size, (weight, bias) in zip(self.gate_sizes, gates, strict=True):
            bound = size**-0.5
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)
        if hasattr(self, "balance_logit"):
            per_gate = self.learn_balance == "gate"
            sizes = [1] * len(self.balances) if per_gate else self.gate_sizes
            for part, value in zip(self.balance_logit.split(sizes), self.balances, strict=True):
                part.fill_(_logit("balance", value))
        if hasattr(self, "ring_logit"):
            assert self.ring is not None
            self.ring_logit.fill_(_logit("ring", self.ring))

    def channel_balance(self) -> Tensor:
        """Returns λ per channel: (C,)."""
        if hasattr(self, "balance_logit"):
            return self._per_channel(self.balance_logit.sigmoid())
        like = self.weight
        parts = [
            torch.full((size,), value, dtype=like.dtype, device=like.device)
            for size, value in zip(self.gate_sizes, self.balances, strict=True)
        ]
        return torch.cat(parts)

    def channel_ring(self) -> Balance | None:
        """Returns ρ: one number, one per channel (C,) where it is learnt, or None for `1 - λ`."""
        if hasattr(self, "ring_logit"):
            return self._per_channel(self.ring_logit.sigmoid())
        return self.ring

    def _per_channel(self, value: Tensor) -> Tensor:
        if self.learn_balance == "channel":
            return value
        return torch.cat([value[i : i + 1].expand(n) for i, n in enumerate(self.gate_sizes)])

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the context of the same shape."""
        if self.is_low_rank:
            return pooled_conv(x, *self._low_rank(x))
        if self.aggregation == "hadamard":
            return self._hadamard(self._filter(x))
        return pointwise_conv(self._filter(x), self.weight[:, :, None, None], self.bias.sum(0))

    def modulate(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to `x ⊙ context(x)`."""
        return modulate(x, *self._low_rank(x)) if self.is_low_rank else x * self(x)

    def modulated_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Maps (B, C, H, W) to `V (x ⊙ context(x)) + c`, V (D, C, 1, 1) and c (D,)."""
        if self.is_low_rank:
            return modulated_conv(x, weight, bias, *self._low_rank(x))
        return pointwise_conv(x * self(x), weight, bias)

    def add_modulated(
        self, x: Tensor, shortcut: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, kernels.Moments]:
        """Computes `z + W (x ⊙ context(x)) + b` in one pass, and measures it; of low rank alone.

        Args and result are those of `kernels.add_modulated`.
        """
        low_weight, high_weight, high_bias, radius, gain, closed = self._low_rank(x)
        waves, low = low_frequencies(x, low_weight, radius, gain, closed)
        high_weight = high_weight.to(x.dtype)
        return kernels.add_modulated(x, shortcut, waves, low, high_weight, high_bias, weight, bias)

    @property
    def is_low_rank(self) -> bool:
        """Whether the context is computed as a linear map plus one of low rank."""
        basis = self.spectral_filter and self.method == "basis"
        return basis and self.aggregation != "hadamard"

    @property
    def modes(self) -> int:
        """The rank: how many basis functions the low frequencies have."""
        return basis_size(self.radius, self.ring is not None)

    def _low_rank(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, float, Tensor, bool]:
        """Returns the arguments of `pooled_conv` after x."""
        high, gain = self._coefficients(x)
        closed = self.ring is not None
        return self.weight, high, self.bias.sum(0), self.radius, gain, closed

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Computes once, for inference, what the balances make of the weights."""
        if self.aggregation == "hadamard":
            return
        if self.is_low_rank:
            high, gain = self._coefficients(self.weight)
            self.high_weight, self.gain = high.clone(), gain.clone()
        self.bias = nn.Parameter(self.bias.sum(0, keepdim=True), self.bias.requires_grad)

    def _coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `W diag(1 - λ)` (C, C) and the gain g (C, K), in the weights' and x's type."""
        if self.high_weight is not None and self.gain is not None:
            return self.high_weight, self.gain
        balance, ring = self.channel_balance(), self.channel_ring()
        return self.weight * (1 - balance), basis_gain(x, self.radius, balance, ring)

    def _filter(self, x: Tensor) -> Tensor:
        if not self.spectral_filter:
            return x
        balance, ring = self.channel_balance(), self.channel_ring()
        return spectral_pool(x, self.radius, balance, ring, self.method)

    def _hadamard(self, x: Tensor) -> Tensor:
        # Indexed, not unpacked: torch.fx cannot iterate over what it traces.
        parts, weights = x.split(self.gate_sizes, 1), self.weight.split(self.gate_sizes, 1)
        contexts = [
            F.conv2d(parts[i], weights[i][:, :, None, None], self.bias[i])
            for i in range(len(self.gate_sizes))
        ]
        return reduce(torch.mul, contexts)

    def extra_repr(self) -> str:
        """Describes the filter."""
        return (
            f"radius={self.radius}, balances={self.balances}, ring={self.ring}, "
            f"aggregation={self.aggregation}, spectral_filter={self.spectral_filter}, "
            f"method={self.method}"
        )


def chunk_sizes(total: int, chunks: int) -> list[int]:
    """Returns the sizes of `torch.chunk`'s parts, with the last one short: 64 in 3 is 22, 22, 20.

    Raises:
        ValueError: `torch.chunk` would return fewer parts (as for 4 in 3).
    """
    size = -(-total // chunks)
    sizes = [min(size, total - start) for start in range(0, total, size)]
    if len(sizes) != chunks:
        raise ValueError(f"{total} channels do not split into {chunks} gates")
    return sizes


def _logit(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}, must lie between 0 and 1 to be learnt")
    return log(value / (1 - value))
