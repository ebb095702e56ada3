"""SPANet and SPANetV2: vision backbones that balance low and high spatial frequencies.

Importing this package registers its models with timm:

    import timm, spanets
    model = timm.create_model("spanet_small", num_classes=10)
"""

from importlib.metadata import PackageNotFoundError, version

import timm

from spanets.backbones import spanet as _spanet
from spanets.backbones import spanetv2 as _spanetv2
from spanets.weights import convert_official, load_weights

__all__ = ["__version__", "convert_official", "list_models", "load_weights"]

try:
    __version__ = version("spanets")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"


def list_models(pattern: str = "") -> list[str]:
    """Returns the names of this package's models that match a shell pattern, all by default."""
    names = [*_spanet.VARIANTS, *_spanetv2.VARIANTS]
    matching = set(timm.list_models(pattern)) if pattern else set(names)
    return [name for name in names if name in matching]
