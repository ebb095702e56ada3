"""Token mixers: modules that hold parameters and call the pure functions of `spectral`.

Shape legend: `B` images, `C` channels, `H W` map size. Every mixer takes and returns NCHW; `SPAM1d`
takes (B, C, W) and `SPAM3d` (B, C, D, H, W).
"""

from spanets.mixers.adaptive import (
    HEADS,
    MERGES,
    SpectralAdaptiveMixer,
    SpectralFilter,
    merge_heads,
)
from spanets.mixers.attention import Attention
from spanets.mixers.context import (
    BALANCES,
    HadamardContext,
    SpectralContext,
    SpectralPool,
    chunk_sizes,
)
from spanets.mixers.spam import SPAM
from spanets.mixers.spam_nd import SPAM1d, SPAM3d

__all__ = [
    "BALANCES",
    "HEADS",
    "MERGES",
    "SPAM",
    "Attention",
    "HadamardContext",
    "SPAM1d",
    "SPAM3d",
    "SpectralAdaptiveMixer",
    "SpectralContext",
    "SpectralFilter",
    "SpectralPool",
    "chunk_sizes",
    "merge_heads",
]
