"""Filters that scale the spatial frequencies of maps, with and without a Fourier transform.

These are pure functions on tensors and import only torch. A frequency is a pair of integers
`(u, v)`, in bins: cycles per map height and width. Radii are in bins, too. Maps have two
dimensions; `dims` selects another number.
"""

from spanets.spectral.pooling import (
    RING,
    Balance,
    basis_gain,
    basis_size,
    check_radius,
    low_frequency_basis,
    low_frequency_mask,
    low_frequency_mask_nd,
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
    "low_frequency_mask_nd",
    "resize_half_spectrum",
    "resolve_method",
    "resolve_rescale_method",
    "spectral_pool",
    "spectral_rescale",
]
