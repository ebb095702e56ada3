"""Finds a timm model's classifier layers, its backbone, and the layers that read the image."""

from typing import Any

from torch import nn

BACKBONE = "backbone"
"""Name of a network's backbone, and the word of `model.freeze` for all but the classifier."""


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the classifier's layers, which may be several ("head", "head_dist").

    They come from the model's timm configuration. Without one, the name is "head".
    """
    return _configured(model, "classifier", ("head",))


def find_body(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the parts of a network that its task does not train from scratch, by name.

    They are the module `backbone`; or else the direct children of a classifier that have
    parameters and do not hold its last layers. Adapters freeze them, and train all other tensors.
    """
    children = {name: m for name, m in model.named_children() if any(True for _ in m.parameters())}
    if BACKBONE in children:
        return {BACKBONE: children[BACKBONE]}
    heads = {name.partition(".")[0] for name in classifier_names(model)}
    return {name: m for name, m in children.items() if name not in heads}


def first_convolutions(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the layers that read the image."""
    return _configured(model, "first_conv", ())


def architecture_of(model: nn.Module) -> str:
    """Returns the timm name of a model without its tag; "" if it tells none."""
    return next(iter(_configured(model, "architecture", ())), "")


def _configured(model: nn.Module, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    config: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if config is None:
        return default
    value = config.get(key) if hasattr(config, "get") else getattr(config, key, None)
    if isinstance(value, str):
        return (value,)
    return tuple(value or ())
