"""Filters of maps by spatial frequency, with and without a Fourier transform.

Pure functions on tensors; import torch alone. Frequencies are integers `(u, v)` in bins (cycles
per map height, width); radii are in bins too.
"""

from spanets.spectral.pooling import (
    RING,
    Balance,
    basis_gain,
    basis_size,
    check_radius,
    low_frequency_basis,
    low_frequency_mask,
    resolve_method,
    spectral_pool,
)
from spanets.spectral.rescaling import (
    RESCALE_METHODS,
    resize_half_spectrum,
    resolve_rescale_method,
    spectral_rescale,
)

__all__ = [
    "RESCALE_METHODS",
    "RING",
    "Balance",
    "basis_gain",
    "basis_size",
    "check_radius",
    "low_frequency_basis",
    "low_frequency_mask",
    "resize_half_spectrum",
    "resolve_method",
    "resolve_rescale_method",
    "spectral_pool",
    "spectral_rescale",
]
