"""The spectral-adaptive mixer of SPANetV2: convolutions at four scales, re-scaled in frequency.

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
    """Re-scales the spectrum of x by `σ(α f)`; f is resized to maps like x.

    Args:
        x: (B, C, H, W).
        logits: f, (C, H', W' // 2 + 1).
        alpha: α (1,), or None for `σ(f)`.
        method: Of `spectral_rescale`.

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


# A leaf of torch.fx: it compares sizes, which a symbolic trace has no numbers for.
fx.wrap("adaptive_filter")


class SpectralFilter(nn.Module):
    """The spectral re-scaling filter: a learnt gain for each channel and frequency.

    Args:
        dim: Channels C.
        map_size: H and W of the maps that the logits are made for; other maps resize them.
        scaled_gate: Learn α of `σ(α f)`, one for all channels, in place of `σ(f)`.
        method: Of `spectral_rescale`: "auto", "matmul" or "fft".
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
        """Starts with gains of about a half at all frequencies."""
        nn.init.normal_(self.logits, std=0.02)
        if self.alpha is not None:
            nn.init.ones_(self.alpha)

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Multiplies the logits by α, for inference: resizing them is linear."""
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
    has C / 4 consecutive channels and a depth-wise convolution of kernel 3 + 2 i. The merged
    heads go through a grouped and a full 1×1 convolution. The heads are merged before they are
    filtered, so that all filters are one transform. NCHW in and out, any size.

    Args:
        dim: Channels C, a multiple of 4.
        map_size: H and W of the maps that the filters are made for.
        merge: "interleaved" (released weights): each group of the grouped convolution mixes the
            four scales; "concatenated" (the authors' later code): four channels of one scale. The
            shapes of the weights agree, so the order is kept beside them, and weights of the
            other order are refused.
        scaled_gate: Of `SpectralFilter`.
        spectral_method: Of `spectral_rescale`.

    Raises:
        ValueError: an unknown order or method, or channels that do not divide.
    """

    interleaved: Tensor

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
        self.merge = merge
        width = dim // HEADS
        self.query = nn.Conv2d(dim, dim, 1, bias=False, **factory)
        self.value = nn.Conv2d(dim, dim, 1, bias=False, **factory)
        self.local_convs = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width, **factory)
            for size in (3 + 2 * i for i in range(HEADS))
        )
        self.filter = SpectralFilter(dim, map_size, scaled_gate, spectral_method, **factory)
        self.proj = nn.Sequential(
            nn.Conv2d(dim, 2 * dim, 1, groups=width, bias=False, **factory),
            GroupNorm1(2 * dim, **factory),
            nn.GELU(),
            nn.Conv2d(2 * dim, dim, 1, bias=False, **factory),
        )
        self.proj_out = nn.Conv2d(dim, dim, 1, bias=False, **factory)
        self.register_buffer("interleaved", torch.empty((), dtype=torch.bool, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Notes the order of the heads beside the weights."""
        self.interleaved.fill_(self.merge == "interleaved")

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
        # Indexed, not unpacked: torch.fx cannot iterate over what it traces.
        return merge_heads([conv(heads[i]) for i, conv in enumerate(self.local_convs)], self.merge)

    # A public hook before loading can add an error, but not keep the weights from being loaded.
    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, *rest: Any
    ) -> None:
        """Refuses weights of the other order, which would fit by shape."""
        order = state_dict.get(f"{prefix}interleaved")
        if order is not None and not order.is_meta and bool(order) != (self.merge == "interleaved"):
            theirs = MERGES[0] if order else MERGES[1]
            errors: list[str] = rest[-1]
            errors.append(
                f"{prefix}interleaved: the weights were trained with merge={theirs!r}, the model "
                f"has {self.merge!r}; create it with merge={theirs!r}"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *rest)

    def extra_repr(self) -> str:
        """Describes the order of the heads."""
        return f"merge={self.merge}"
