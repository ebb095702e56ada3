"""Measures an image of 1 to 16 channels, in the units that training uses."""

from typing import Any

import numpy as np

from spanets.data.statistics.measuring import (
    DIGEST_BYTES,
    ELONGATED,
    ODD,
    SMALL_SIDE,
    Measured,
    has_wrong_suffix,
)
from spanets_runtime.arrays import PixelFormat, form_of

FAR = 100
"""Scaled numbers beyond this are reported: networks expect about -4 to 4 after standardizing."""


def measure_array(source: Any, pixels: PixelFormat) -> Measured:
    """Decodes and measures an image, as training reads it.

    Raises:
        ImageError: see `PixelFormat.read`.
    """
    first = pixels.files_of(source)[0]
    digest = pixels.digest(source, DIGEST_BYTES)
    array = pixels.read(source)
    mean, square = np.zeros(pixels.channels), np.zeros(pixels.channels)
    extremes = np.zeros((pixels.channels, 2))
    for channel in range(pixels.channels):
        values = pixels.to_unit(array[..., channel], array.dtype).astype(np.float64)
        mean[channel], square[channel] = values.mean(), (values**2).mean()
        extremes[channel] = values.min(), values.max()
    height, width = array.shape[:2]
    form = form_of(first)
    is_constant = extremes[:, 0] == extremes[:, 1]
    found = {
        "suffix": form != "NPY" and has_wrong_suffix(first, form),
        "small": min(height, width) < SMALL_SIDE,
        "elongated": max(height, width) > ELONGATED * min(height, width),
        "uniform": bool(is_constant.all()),
        "constant": bool(is_constant.any() and not is_constant.all()),
        "far": bool((np.abs(extremes) > FAR).any()),
    }
    return Measured(
        digest,
        (width, height),
        str(array.dtype),
        form,
        mean,
        square,
        tuple(name for name in ODD if found.get(name)),
    )
