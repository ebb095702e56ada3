"""Measures what the stages of a network keep of the images: the relative log amplitude."""

from collections.abc import Sequence
from typing import Any

import torch

from spanets.analysis import capture, find_stages, profile_frequencies, relative_log_amplitude
from spanets.report.charts import MOST_CURVES, Points
from spanets.sources import Source
from spanets_runtime.errors import UserError
from spanets_runtime.listing import spread_evenly

MOST_IMAGES = 16
"""Largest number of images that are measured."""


@torch.no_grad()
def measure_stages(source: Source, images: Sequence[Any]) -> tuple[dict[str, Points], int]:
    """Returns the radial relative log amplitude of each stage, a mean over images.

    Args:
        source: A model of whole images.
        images: Images as its preprocessing reads them.

    Returns:
        Points (frequency as a fraction of the stage's Nyquist frequency, relative log amplitude)
        by module, without maps of one pixel; and the number of images.

    Raises:
        UserError: no stages, or no readable images.
    """
    stages, pixels = spread_evenly(find_stages(source.network), MOST_CURVES), []
    for i in spread_evenly(range(len(images)), MOST_IMAGES):
        try:
            pixels.append(torch.from_numpy(source.preprocess(source.preprocess.read(images[i]))))
        except UserError:
            continue
    if not pixels:
        raise UserError("no readable images")
    device = next(source.network.parameters()).device
    maps = capture(source.network.eval(), torch.stack(pixels).to(device), stages)
    curves: dict[str, Points] = {}
    for name, found in maps.items():
        values = relative_log_amplitude(found, "radial").mean(0).double().tolist()
        places = profile_frequencies(found.shape[-2], found.shape[-1], "radial").tolist()
        if len(values) > 1:
            curves[name] = list(zip(places, values, strict=True))
    return curves, len(pixels)
