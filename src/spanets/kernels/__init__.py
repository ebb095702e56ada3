"""Triton kernels for channels-last maps on a GPU, each the same function as some plain torch.

They exist where a library's kernels were measured to take many times what reading and writing the
maps takes (benchmarks/results/gpu.json). `takes` tells where they run; plain torch does elsewhere.
"""

from spanets.kernels.availability import takes
from spanets.kernels.mlp import MAX_CHANNELS, add_mlp
from spanets.kernels.modulation import MAX_MODES, modulate
from spanets.kernels.separable import MAX_TAPS, separable_conv

__all__ = [
    "MAX_CHANNELS",
    "MAX_MODES",
    "MAX_TAPS",
    "add_mlp",
    "modulate",
    "separable_conv",
    "takes",
]
