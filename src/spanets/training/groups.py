"""Optimizer parameter groups by learning rate and weight decay."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from spanets.recipe.sections import Optim
from spanets.weights.classifiers import classifier_names
from spanets_runtime.errors import UsageError


def scale_learning_rate(
    groups: Iterable[Mapping[str, Any]], chosen: Iterable[nn.Parameter], factor: float
) -> list[dict[str, Any]]:
    """Splits parameter groups, so that some parameters learn at a multiple of the rate.

    Args:
        groups: Parameter groups, perhaps with an `lr_scale`.
        chosen: The parameters with another rate.
        factor: Its ratio to the rate of the others; it replaces the `lr_scale` of their groups.
    """
    inside = {id(parameter) for parameter in chosen}
    split = []
    for group in groups:
        rest = [p for p in group["params"] if id(p) not in inside]
        moved = [p for p in group["params"] if id(p) in inside]
        split.append({**group, "params": rest})
        split.append({**group, "params": moved, "lr_scale": factor})
    return [group for group in split if group["params"]]


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


def check_head_rate(lr: float, head_lr: float | None) -> None:
    """Raises a UsageError if the classifier's rate has no ratio to that of the other layers."""
    if head_lr is not None and not lr:
        raise UsageError(
            f"optim.head_lr is {head_lr:g}, and optim.lr is 0, of which it must be a multiple; to "
            f"train the classifier alone: --model.freeze backbone --optim.lr {head_lr:g}, without "
            "optim.head_lr"
        )


def group_with_head(model: nn.Module, optim: Optim, head_lr: float | None) -> list[dict[str, Any]]:
    """Groups the parameters of a timm model by layer decay, with another rate for its classifier.

    Args:
        model: The model; its `no_weight_decay` names parameters without weight decay.
        optim: Learning rate, weight decay and layer decay.
        head_lr: Learning rate of the classifier, or None for that of the other layers.

    Raises:
        UsageError: see `check_head_rate`.
    """
    check_head_rate(optim.lr, head_lr)
    keep: set[str] = getattr(model, "no_weight_decay", set)()
    if optim.layer_decay is None:
        groups = param_groups_weight_decay(model, optim.weight_decay, no_weight_decay_list=keep)
    else:
        groups = param_groups_layer_decay(
            model, optim.weight_decay, keep, layer_decay=optim.layer_decay
        )
    if head_lr is None:
        return groups
    heads = [model.get_submodule(name) for name in classifier_names(model)]
    of_heads = [p for head in heads for p in head.parameters()]
    return scale_learning_rate(groups, of_heads, head_lr / optim.lr)
