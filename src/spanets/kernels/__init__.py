"""Triton kernels for channels-last maps on a GPU; each computes the same as plain torch code.

They replace library kernels that took many times as long as reading and writing the maps
(benchmarks/results/gpu.json). `is_supported` tells where they run; elsewhere plain torch runs.
"""

from spanets.kernels.availability import is_supported, supports_inference, supports_product
from spanets.kernels.gelu import gelu_linear, normed_gelu
from spanets.kernels.mixing import add_modulated
from spanets.kernels.mlp import MAX_CHANNELS, add_mlp
from spanets.kernels.modulation import modulate, modulated_linear
from spanets.kernels.moments import Moments, Normalizer, add_and_measure, measure, normalizer
from spanets.kernels.projection import MAX_MODES, project
from spanets.kernels.separable import MAX_TAPS, normed_separable_conv, separable_conv

__all__ = [
    "MAX_CHANNELS",
    "MAX_MODES",
    "MAX_TAPS",
    "Moments",
    "Normalizer",
    "add_and_measure",
    "add_mlp",
    "add_modulated",
    "gelu_linear",
    "is_supported",
    "measure",
    "modulate",
    "modulated_linear",
    "normalizer",
    "normed_gelu",
    "normed_separable_conv",
    "project",
    "separable_conv",
    "supports_inference",
    "supports_product",
]
