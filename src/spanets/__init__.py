"""SPANet and SPANetV2: vision backbones that balance low and high spatial frequencies.

Importing this package registers its models with timm:

    import timm, spanets
    model = timm.create_model("spanet_small", num_classes=10)
"""

import timm

from spanets.backbones import spanet, spanetv2  # noqa: F401, registers the models with timm
from spanets.backbones.registry import own_models
from spanets.kernels.fused import set_fused
from spanets.sources import open_source
from spanets.version import __version__
from spanets.weights import convert_official, load_weights

__all__ = [
    "__version__",
    "convert_official",
    "list_models",
    "load_weights",
    "open_source",
    "set_fused",
]


def list_models(pattern: str = "") -> list[str]:
    """Returns the names of this package's models that match a shell pattern, all by default."""
    matching = set(timm.list_models(pattern)) if pattern else set(own_models())
    return [name for name in own_models() if name in matching]
