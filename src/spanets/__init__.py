"""SPANet and SPANetV2: vision backbones that balance low and high spatial frequencies.

Importing this package registers its models with timm:

    import timm, spanets
    model = timm.create_model("spanet_small", num_classes=10)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from timm import list_models as list_timm_models

from spanets.backbones import spanet, spanetv2  # noqa: F401, registers the models with timm
from spanets.backbones.registry import own_models
from spanets.kernels.fused import set_fused
from spanets.sources import open_source
from spanets.version import __version__
from spanets.weights import convert_official, load_weights

if TYPE_CHECKING:
    from spanets.training.using import predict_table

__all__ = [
    "__version__",
    "convert_official",
    "list_models",
    "load_weights",
    "open_source",
    "predict_table",
    "set_fused",
]


def list_models(pattern: str = "", pretrained: bool = False) -> list[str]:
    """Returns the names of this package's models, in the order of the papers' tables.

    Args:
        pattern: Shell pattern, such as "*small*"; "" matches all names.
        pretrained: Whether to list only published weights; their names have a tag, as in timm.
    """
    matching = list_timm_models(pattern, pretrained=pretrained)
    own = {name: number for number, name in enumerate(own_models())}
    found = [name for name in matching if name.partition(".")[0] in own]
    return sorted(found, key=lambda name: own[name.partition(".")[0]])


def __getattr__(name: str) -> Any:
    """Imports `predict_table` when it is first used, because the tasks take time to import."""
    if name != "predict_table":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("spanets.training.using").predict_table
