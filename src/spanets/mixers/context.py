"""The spectrally pooled context of SPAM (SPANet, Eq. 19 and Table 5).

Shape legend: `B` images, `C` channels, `H W` map size, `N` gates.
"""

from collections.abc import Sequence
from functools import reduce
from math import log
from typing import Any

import torch
from torch import Tensor, fx, nn

from spanets.mixers.checks import check_choice
from spanets.spectral import (
    RING,
    Balance,
    basis_gain,
    check_radius,
    resolve_method,
    spectral_pool,
)
from spanets.spectral.constants import SizeConstant
from spanets.spectral.tracing import fixed_size

BALANCES = (0.7, 0.8, 0.9)
"""λ of the three gates (SPANet, section 4.1)."""

LEARN_BALANCE = (None, "gate", "channel")


@SizeConstant
def _balance_by_channel(
    channels: int, balances: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    sizes = chunk_sizes(channels, len(balances))
    parts = [
        torch.full((size,), value, dtype=dtype, device=device)
        for size, value in zip(sizes, balances, strict=True)
    ]
    return torch.cat(parts)


def fixed_balance(like: Tensor, balances: tuple[float, ...]) -> Tensor:
    """Returns λ per channel, (C,), for (·, C, ...) split into gates; in the dtype of `like`."""
    return _balance_by_channel(like, fixed_size(like.shape[1]), balances)


@SizeConstant
def _gain_by_channel(
    channels: int,
    radius: float,
    balances: tuple[float, ...],
    ring: float | None,
    dims: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    like = torch.empty(1, channels, dtype=dtype, device=device)
    balance = fixed_balance(like, balances)
    return basis_gain(like, radius, balance, ring, dims).contiguous()


def fixed_gain(
    x: Tensor, radius: float, balances: tuple[float, ...], ring: float | None, dims: int = 2
) -> Tensor:
    """Returns g (C, K) of balances that are not learnt, for maps x; see `basis_gain`."""
    return _gain_by_channel(x, fixed_size(x.shape[-dims - 1]), radius, balances, ring, dims)


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Returns one value per channel, (C,), of one per gate, (N,), for (·, C, ...)."""
    sizes = chunk_sizes(fixed_size(like.shape[1]), len(values))
    return torch.cat([values[i : i + 1].expand(size) for i, size in enumerate(sizes)])


# torch.fx must not trace into these: they need sizes and dtypes, unknown in a symbolic trace.
fx.wrap("fixed_balance")
fx.wrap("fixed_gain")
fx.wrap("per_channel")
fx.wrap("spectral_pool")


class SpectralPool(nn.Module):
    """The spectral pooling filter with one balance per gate: `SPF_{λ_i}(x_i)` (Eq. 5-18).

    Args:
        dim: Channels C; `chunk_sizes` splits them into gates.
        radius: Radius of the low-frequency disc, in frequency bins.
        balances: λ_i, one per gate.
        ring: ρ, the gain at distance exactly the radius; None means `1 - λ` (Eq. 16 and 18).
        method: "auto", "basis" or "fft"; see `spectral_pool`.
        learn_balance: "gate" or "channel" to learn one λ for each, as the sigmoid of a parameter;
            None keeps λ fixed.
        learn_ring: Whether to learn ρ in the same way; needs `learn_balance` and a ring value.
        dims: Number of dimensions of a map.
    """

    def __init__(
        self,
        dim: int,
        radius: float,
        balances: Sequence[float] = BALANCES,
        ring: float | None = RING,
        method: str = "auto",
        learn_balance: str | None = None,
        learn_ring: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        dims: int = 2,
    ) -> None:
        super().__init__()
        check_choice("learn_balance", learn_balance, LEARN_BALANCE)
        check_radius(radius)
        chunk_sizes(dim, len(balances))  # raises ValueError if they do not fit
        if learn_ring and (learn_balance is None or ring is None):
            raise ValueError("learn_ring needs learn_balance and a ring value to start from")
        self.radius = radius
        self.balances = tuple(balances)
        self.ring = ring
        self.method = resolve_method(method, radius, ring, dims)
        self.dims = dims
        self.learn_balance = learn_balance
        learnt = {None: 0, "gate": len(self.balances), "channel": dim}[learn_balance]
        if learnt:
            self.balance_logit = nn.Parameter(torch.empty(learnt, device=device, dtype=dtype))
        if learn_ring:
            self.ring_logit = nn.Parameter(torch.empty(learnt, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Sets learnt balances and rings to their initial values."""
        if hasattr(self, "balance_logit"):
            sizes = chunk_sizes(len(self.balance_logit), len(self.balances))
            for part, value in zip(self.balance_logit.split(sizes), self.balances, strict=True):
                part.fill_(_logit("balance", value))
        if hasattr(self, "ring_logit"):
            assert self.ring is not None
            self.ring_logit.fill_(_logit("ring", self.ring))

    def channel_balance(self, like: Tensor) -> Tensor:
        """Returns λ per channel: (C,), for maps or weights (·, C, ...), in their dtype."""
        if hasattr(self, "balance_logit"):
            return self._by_channel(self.balance_logit.sigmoid(), like)
        return fixed_balance(like, self.balances)

    def channel_ring(self, like: Tensor) -> Balance | None:
        """Returns ρ: a number, a learnt value per channel (C,), or None for `1 - λ`."""
        if hasattr(self, "ring_logit"):
            return self._by_channel(self.ring_logit.sigmoid(), like)
        return self.ring

    def _by_channel(self, value: Tensor, like: Tensor) -> Tensor:
        return value if self.learn_balance == "channel" else per_channel(value, like)

    def forward(self, x: Tensor) -> Tensor:
        """Filters (B, C, H, W), or maps of another number of dimensions."""
        balance, ring = self.channel_balance(x), self.channel_ring(x)
        gain = None
        if self.learn_balance is None and self.method == "basis":
            gain = fixed_gain(x, self.radius, self.balances, self.ring, self.dims)
        return spectral_pool(x, self.radius, balance, ring, self.method, self.dims, gain)

    def extra_repr(self) -> str:
        """Describes the filter."""
        return (
            f"radius={self.radius}, balances={self.balances}, ring={self.ring}, "
            f"method={self.method}"
        )


class SpectralContext(nn.Module):
    """The aggregated context of SPAM: `Σ_i (W_i SPF_{λ_i}(x_i) + b_i)` (SPANet, Eq. 19).

    The channels are split into N gates, as `torch.chunk` does. One 1×1 convolution from C to C
    channels holds all projections W_i side by side.

    Args:
        dim: Channels C.
        radius, balances, ring, method, learn_balance, learn_ring: See `SpectralPool`.
        spectral_filter: False leaves the filter out (Table 5, first row).

    Raises:
        ValueError: unknown choice, or dim cannot be split into N gates.
    """

    def __init__(
        self,
        dim: int,
        radius: float = 2,
        balances: Sequence[float] = BALANCES,
        ring: float | None = RING,
        spectral_filter: bool = True,
        method: str = "auto",
        learn_balance: str | None = None,
        learn_ring: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        if not 0 < len(balances) <= dim:
            raise ValueError(f"{len(balances)} balances for {dim} channels, allowed: 1 to {dim}")
        self.gates = len(chunk_sizes(dim, len(balances)))
        options = (radius, balances, ring, method, learn_balance, learn_ring)
        pool = SpectralPool(dim, *options, **factory)
        self.filter = pool if spectral_filter else nn.Identity()
        # `reset_parameters` draws the weights again. Without the fork, the convolution's own draw
        # would shift the random numbers, and a seed would give a different network.
        with torch.random.fork_rng(devices=[]):
            self.proj = nn.Conv2d(dim, dim, 1, bias=False, **factory)
        self.bias = nn.Parameter(torch.empty(len(balances), dim, **factory))  # b_i, N C
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises each gate's projection as a 1×1 convolution from that gate's channels."""
        for weight, bias in zip(self.proj.weight.chunk(self.gates, 1), self.bias, strict=True):
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the context of the same shape."""
        return self.proj(self.filter(x)) + self.bias.sum(0)[:, None, None]

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Sums the gates' biases into one, for inference."""
        self.bias = nn.Parameter(self.bias.sum(0, keepdim=True), self.bias.requires_grad)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        rename_earlier(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)


class HadamardContext(SpectralContext):
    """The context as a product of the gates: `Π_i (W_i SPF_{λ_i}(x_i) + b_i)` (Table 5).

    For arguments and errors see `SpectralContext`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the context of the same shape."""
        # To apply W_i alone, set the channels of all other gates to 0.
        only = split_gates(self.filter(x), self.gates)
        gates = [self.proj(only[i]) + self.bias[i, :, None, None] for i in range(self.gates)]
        return reduce(torch.mul, gates)

    def reparameterize(self) -> None:
        """Does nothing: each bias belongs to one factor, so they cannot be summed."""


def split_gates(x: Tensor, gates: int) -> list[Tensor]:
    """Returns one copy of x (B, C, H, W) per gate, with the other gates' channels set to 0."""
    parts, nothing = x.chunk(gates, 1), torch.zeros_like(x).chunk(gates, 1)
    return [torch.cat([*nothing[:i], parts[i], *nothing[i + 1 :]], 1) for i in range(gates)]


# torch.fx must not trace into it: it cannot iterate over a traced value.
fx.wrap("split_gates")


def rename_earlier(state_dict: dict[str, Any], prefix: str = "") -> None:
    """Renames the tensors of a context from version 0.1 to the current names.

    Args:
        state_dict: Weights, or an optimizer's state for each weight; changed in place.
        prefix: Prefix of the context's parameters, with its dot.
    """
    if f"{prefix}weight" in state_dict:  # (C, C)
        state_dict[f"{prefix}proj.weight"] = state_dict.pop(f"{prefix}weight")[..., None, None]
    for name in ("balance_logit", "ring_logit"):
        if f"{prefix}{name}" in state_dict:
            state_dict[f"{prefix}filter.{name}"] = state_dict.pop(f"{prefix}{name}")


def chunk_sizes(total: int, chunks: int) -> list[int]:
    """Returns the sizes of `torch.chunk`'s parts; the last may be smaller: 64 in 3 is 22, 22, 20.

    Raises:
        ValueError: `torch.chunk` would return fewer parts (4 in 3, for example), or there are no
            parts.
    """
    if chunks < 1:
        raise ValueError(f"{chunks} balances for {total} channels, allowed: 1 to {total}")
    # Rounded up. Of a negative number, ONNX's integer division rounds otherwise than Python's.
    size = (total + chunks - 1) // chunks
    sizes = [min(size, total - start) for start in range(0, total, size)]
    if len(sizes) != chunks:
        raise ValueError(f"{total} channels do not split into {chunks} gates")
    return sizes


def _logit(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}, must lie between 0 and 1 to be learnt")
    return log(value / (1 - value))
