"""Parameters in groups of one learning rate and one weight decay, for the optimizer."""

from collections.abc import Callable
from typing import Any

from torch import nn


def group_parameters(
    model: nn.Module, weight_decay: float, scale_of: Callable[[str], float]
) -> list[dict[str, Any]]:
    """Groups a model's trainable parameters.

    Args:
        model: Its biases and one-dimensional parameters do not decay.
        weight_decay: Of the others.
        scale_of: The factor of the learning rate of a parameter, by its name.

    Returns:
        Groups as torch's optimizers take them, with `lr_scale` for timm's schedules.
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
