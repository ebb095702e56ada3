"""Optimizer parameter groups by learning rate and weight decay."""

from collections.abc import Callable
from typing import Any

from torch import nn


def group_parameters(
    model: nn.Module, weight_decay: float, scale_of: Callable[[str], float]
) -> list[dict[str, Any]]:
    """Groups a model's trainable parameters.

    Args:
        model: The model. Biases and one-dimensional parameters get no weight decay.
        weight_decay: Weight decay of all other parameters.
        scale_of: Function from a parameter's name to the factor of its learning rate.

    Returns:
        Parameter groups for torch's optimizers, with `lr_scale` for timm's schedules.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim <= 1 or name.endswith(".bias") else weight_decay
        scale = scale_of(name)
        new = {"params": [], "weight_decay": decay, "lr_scale": scale}
        groups.setdefault((scale, decay), new)["params"].append(parameter)
    return list(groups.values())
