"""The spectral-adaptive mixer of SPANetV2: convolutions at four scales, then a spectral gain.

Shape legend: `B` images, `C` channels, `H W` map size, `G` heads, `F = W // 2 + 1` half-spectrum
columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1
from torch import Tensor, fx, nn

from spanets.mixers.checks import check_choice
from spanets.spectral import RESCALE_METHODS, resize_half_spectrum, spectral_rescale

HEADS = 4

MERGES = ("interleaved", "concatenated")


def adaptive_filter(x: Tensor, logits: Tensor, alpha: Tensor | None, method: str) -> Tensor:
    """Scales the spectrum of x by `σ(α f)`, after resizing f to the size of x.

    Args:
        x: Maps (B, C, H, W).
        logits: f, (C, H', W' // 2 + 1).
        alpha: α (1,), or None for `σ(f)`.
        method: See `spectral_rescale`.

    Returns:
        (B, C, H, W).
    """
    logits = resize_half_spectrum(logits, *x.shape[-2:])
    if alpha is not None:
        logits = alpha * logits
    return spectral_rescale(x, logits.sigmoid(), method)


def merge_heads(heads: Sequence[Tensor], merge: str) -> Tensor:
    """Merges G maps (B, C / G, H, W) into one (B, C, H, W).

    Channel g of head i becomes channel `g · G + i` ("interleaved") or `i · C / G + g`
    ("concatenated").
    """
    if merge == "interleaved":
        return torch.stack(list(heads), 2).flatten(1, 2)
    return torch.cat(list(heads), 1)


# torch.fx must not trace into it: it compares sizes, which are unknown in a symbolic trace.
fx.wrap("adaptive_filter")


class HeadMerge(nn.Module):
    """Merges heads, and records their order in the state dict, where no shape would tell it.

    Args:
        merge: "interleaved" or "concatenated"; see `merge_heads`.
    """

    interleaved: Tensor

    def __init__(self, merge: str, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.merge = merge
        self.register_buffer("interleaved", torch.empty((), dtype=torch.bool, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Records the order."""
        self.interleaved.fill_(self.merge == "interleaved")

    def forward(self, *heads: Tensor) -> Tensor:
        """Merges G maps (B, C / G, H, W) into one (B, C, H, W)."""
        return merge_heads(heads, self.merge)

    # Not torch's public load hook: it can report an error but cannot stop the loading.
    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, *rest: Any
    ) -> None:
        """Rejects weights of the other merge order, whose shapes would fit."""
        order = state_dict.get(f"{prefix}interleaved")
        is_known = order is not None and not order.is_meta and order.numel() == 1
        if is_known and bool(order) != (self.merge == "interleaved"):
            theirs = MERGES[0] if order else MERGES[1]
            errors: list[str] = rest[-1]
            errors.append(
                f"{prefix}interleaved: the weights were trained with merge={theirs!r}, the model "
                f"has {self.merge!r}; create it with merge={theirs!r}"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *rest)

    def extra_repr(self) -> str:
        """Describes the order."""
        return f"merge={self.merge}"


def rename_order(state_dict: dict[str, Any], prefix: str = "") -> None:
    """Renames the tensor of a mixer that records the merge order, from version 0.1.

    Args:
        state_dict: Weights; changed in place.
        prefix: Prefix of the mixer's tensors, with its dot.
    """
    if f"{prefix}interleaved" in state_dict:
        state_dict[f"{prefix}merge.interleaved"] = state_dict.pop(f"{prefix}interleaved")


class SpectralFilter(nn.Module):
    """The spectral re-scaling filter: a learnt gain for each channel and frequency.

    Args:
        dim: Channels C.
        map_size: H and W of the logits' grid. The logits are resized for maps of other sizes.
        scaled_gate: Whether to use `σ(α f)`, with one learnt α for all channels, instead of `σ(f)`.
        method: "auto", "matmul" or "fft"; see `spectral_rescale`.
    """

    def __init__(
        self,
        dim: int,
        map_size: tuple[int, int],
        scaled_gate: bool = False,
        method: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("spectral_method", method, RESCALE_METHODS)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        height, width = map_size
        self.map_size = (height, width)
        self.method = method
        self.logits = nn.Parameter(torch.empty(dim, height, width // 2 + 1, **factory))
        self.alpha = nn.Parameter(torch.empty(1, **factory)) if scaled_gate else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Sets the gains to about 0.5 at all frequencies."""
        nn.init.normal_(self.logits, std=0.02)
        if self.alpha is not None:
            nn.init.ones_(self.alpha)

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Folds α into the logits, for inference; valid at all sizes, since resizing is linear."""
        if self.alpha is not None:
            self.logits.mul_(self.alpha)
            self.alpha = None

    def forward(self, x: Tensor) -> Tensor:
        """Filters (B, C, H, W)."""
        return adaptive_filter(x, self.logits, self.alpha, self.method)

    def extra_repr(self) -> str:
        """Describes the filter."""
        height, width = self.map_size
        return f"map_size={height}x{width}, method={self.method}"


class SpectralAdaptiveMixer(nn.Module):
    """SPANetV2's token mixer: a query gated by filtered context at several scales.

    `y = Linear_out(GELU(Linear_q(x)) ⊙ proj(merge_i SRF_i(DW_i(Linear_c(x)_i))))`: head i of G = 4
    has C / 4 consecutive channels and a depth-wise convolution of kernel size 3 + 2 i. `proj` is a
    grouped, then a full 1×1 convolution. The code merges the heads before it filters them, so that
    one transform serves all heads. NCHW in and out, any size.

    Args:
        dim: Channels C, a multiple of 4.
        map_size: H and W of the filters' grid; see `SpectralFilter`.
        merge: Channel order of the merged heads. "interleaved" (released weights): each group of
            the grouped convolution mixes all four scales. "concatenated" (the authors' later
            code): each group has four channels of one scale. Both orders have weights of the same
            shapes, so the state dict records the order, and loading the other one fails.
        scaled_gate: See `SpectralFilter`.
        spectral_method: See `spectral_rescale`.

    Raises:
        ValueError: unknown merge or method, or dim is not a multiple of 4.
    """

    def __init__(
        self,
        dim: int,
        map_size: tuple[int, int] = (56, 56),
        merge: str = "interleaved",
        scaled_gate: bool = False,
        spectral_method: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("merge", merge, MERGES)
        if dim % HEADS:
            raise ValueError(f"{dim} channels do not split into {HEADS} heads")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        width = dim // HEADS
        self.query = nn.Conv2d(dim, dim, 1, bias=False, **factory)
        self.value = nn.Conv2d(dim, dim, 1, bias=False, **factory)
        self.local_convs = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width, **factory)
            for size in (3 + 2 * i for i in range(HEADS))
        )
        self.merge = HeadMerge(merge, device)
        self.filter = SpectralFilter(dim, map_size, scaled_gate, spectral_method, **factory)
        self.proj = nn.Sequential(
            nn.Conv2d(dim, 2 * dim, 1, groups=width, bias=False, **factory),
            GroupNorm1(2 * dim, **factory),
            nn.GELU(),
            nn.Conv2d(2 * dim, dim, 1, bias=False, **factory),
        )
        self.proj_out = nn.Conv2d(dim, dim, 1, bias=False, **factory)

    def boundary_layers(self) -> tuple[list[nn.Conv2d], nn.Conv2d]:
        """Returns the 1×1 convolutions that read the input, and the one that writes the output."""
        return [self.query, self.value], self.proj_out

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        query = F.gelu(self.query(x))
        context = self.proj(self.filter(self.local(self.value(x))))
        return self.proj_out(query * context)

    def local(self, x: Tensor) -> Tensor:
        """Convolves each head of (B, C, H, W) at its own scale, and merges the heads."""
        heads = x.chunk(HEADS, 1)
        # Indexed, not unpacked: torch.fx cannot iterate over a traced value.
        return self.merge(*[conv(heads[i]) for i, conv in enumerate(self.local_convs)])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        rename_order(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)
