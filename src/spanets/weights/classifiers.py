"""Finds a timm model's classifier layers, and the layers that read the image."""

from typing import Any

from torch import nn


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the classifier's layers, which may be several ("head", "head_dist").

    They come from the model's timm configuration. Without one, the name is "head".
    """
    return _configured(model, "classifier", ("head",))


def first_convolutions(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the layers that read the image."""
    return _configured(model, "first_conv", ())


def _configured(model: nn.Module, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    config: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if config is None:
        return default
    value = config.get(key) if hasattr(config, "get") else getattr(config, key, None)
    if isinstance(value, str):
        return (value,)
    return tuple(value or ())
