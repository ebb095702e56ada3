"""Learning rates that decrease from the head to the backbone's first stage."""

from collections.abc import Callable
from typing import Any

from spanets.segmentation import Segmenter

_BACKBONE = "backbone.net."


def stage_scales(model: Segmenter, rate: float, layers: int) -> Callable[[str], float]:
    """Returns a function from a parameter's name to the factor of its learning rate.

    Stage i has the factor `rate ** (layers - i)`, stem and downsampling layers
    `rate ** (layers + 1)`, output norms and heads 1. SPANetV2's UPerNets use this with 7 (s18) and
    11 (s36) layers.

    Args:
        model: A segmenter with any backbone.
        rate: Factor between stages, at most 1.
        layers: Exponent of stage 0.
    """
    net: Any = model.backbone.net
    stages = [_flat(name) for name in net.feature_info.module_name()]

    def scale_of(name: str) -> float:
        return rate ** _distance(name, stages, layers)

    return scale_of


def _distance(name: str, stages: list[str], layers: int) -> int:
    """Returns the distance of a parameter from the head, as an exponent of the rate."""
    if not name.startswith(_BACKBONE) or "output_norms" in name:
        return 0
    flat = _flat(name.removeprefix(_BACKBONE).removeprefix("model."))
    for i, stage in enumerate(stages):
        if flat.startswith(f"{stage}_") and not flat.startswith(f"{stage}_downsample_"):
            return layers - i
    return layers + 1


def _flat(name: str) -> str:
    """Returns a module's name as timm's feature extractors write it."""
    return name.replace(".", "_")
