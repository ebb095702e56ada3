"""Measures and plots what any `nn.Module` does to spatial frequencies.

Measurements are functions from tensors to arrays with units. `plots` only draws arrays.
"""

from spanets.analysis.capture import capture, find_modules, find_stages, stream, to_maps
from spanets.analysis.fourier import (
    SpectrumStatistics,
    log_amplitude,
    profile,
    profile_frequencies,
    relative_log_amplitude,
    spectrum_map,
)
from spanets.analysis.graph import graph_spectrum
from spanets.analysis.reliance import (
    bootstrap,
    mix_frequencies,
    pair_classes,
    shuffle_patches,
    smooth_texture,
    suppressions,
    without_colour,
)
from spanets.analysis.response import (
    FrequencyResponse,
    effective_receptive_field,
    frequency_response,
    impulse_magnitude,
    impulse_response,
)
from spanets.analysis.robustness import (
    Answers,
    band_pass,
    band_variants,
    compare_answers,
    fourier_basis,
    frequency_grid,
    perturb,
    wave_variants,
)

__all__ = [
    "Answers",
    "FrequencyResponse",
    "SpectrumStatistics",
    "band_pass",
    "band_variants",
    "bootstrap",
    "capture",
    "compare_answers",
    "effective_receptive_field",
    "find_modules",
    "find_stages",
    "fourier_basis",
    "frequency_grid",
    "frequency_response",
    "graph_spectrum",
    "impulse_magnitude",
    "impulse_response",
    "log_amplitude",
    "mix_frequencies",
    "pair_classes",
    "perturb",
    "profile",
    "profile_frequencies",
    "relative_log_amplitude",
    "shuffle_patches",
    "smooth_texture",
    "spectrum_map",
    "stream",
    "suppressions",
    "to_maps",
    "wave_variants",
    "without_colour",
]
