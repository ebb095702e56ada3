"""Which parameters of a timm model are its classifier, and which see the image's channels."""

from typing import Any

from torch import nn


def classifier_parts(model: nn.Module) -> frozenset[str]:
    """Returns the first words of the classifier's names, which may be several ("head_dist").

    timm's configuration of the model has them; models of other origin call it "head".
    """
    names = _configured(model, "classifier", ("head",))
    return frozenset(name.split(".")[0] for name in names)


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
