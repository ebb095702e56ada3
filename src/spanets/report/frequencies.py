"""Measures what the stages of a network keep of the images: the relative log amplitude."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from spanets.analysis import capture, profile_frequencies, relative_log_amplitude
from spanets.report.charts import MOST_CURVES, Points
from spanets.sources import Source
from spanets.training.report_parts import spread
from spanets_runtime.errors import UserError

MOST_IMAGES = 16
"""Largest number of images that are measured."""


def find_stages(network: nn.Module) -> list[str]:
    """Returns the modules that timm names as a network's stages, at most `MOST_CURVES`.

    Raises:
        UserError: the network names none.
    """
    known = {name for name, _ in network.named_modules()}
    rows = getattr(network, "feature_info", None) or []
    names = list(dict.fromkeys(row["module"] for row in rows if isinstance(row, dict)))
    found = [name for name in names if name in known]
    if not found:
        raise UserError("the network does not name its stages")
    return [found[i] for i in spread(len(found), MOST_CURVES)]


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
    stages, pixels = find_stages(source.network), []
    for i in spread(len(images), MOST_IMAGES):
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
