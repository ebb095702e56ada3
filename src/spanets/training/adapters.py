"""Adds adapters to a network with `peft`: LoRA and its relatives, on a frozen backbone."""

import re
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spanets.recipe.sections import Lora
from spanets.weights.classifiers import find_body
from spanets_runtime.errors import UsageError, nearest, require


def add_adapters(model: nn.Module, settings: Lora) -> tuple[dict[str, nn.Module], str]:
    """Adds trainable adapters to layers of the backbone, and freezes the rest of the backbone.

    Everything outside of the backbone, such as the classifier, stays trainable.

    Args:
        model: The whole network, with the weights to adapt; it is changed.
        settings: The keys of `model.lora`.

    Returns:
        The backbone's batch norms, which must stay in evaluation mode so that the adapted weights
        do not change; and a line with the number of parameters that are trained.

    Raises:
        UsageError: the targets match no layer.
        UserError: peft is not installed.
    """
    peft = require("peft", "peft")
    body = find_body(model)
    names = _find_targets(body, settings.targets)
    outside = _parameters_outside(model, body)
    total = sum(p.numel() for p in model.parameters())
    peft.inject_adapter_in_model(_configure(peft, settings, names), model)
    for parameter in outside:  # peft has frozen everything
        parameter.requires_grad_(True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    norms: dict[str, nn.Module] = {
        name: m for name, m in _named_parts(body).items() if isinstance(m, _BatchNorm)
    }
    of_rank = "" if settings.rank is None else f" of rank {settings.rank}"
    note = (
        f"{settings.kind}{of_rank} on {len(names)} layers: {trained:,} parameters are trained, of "
        f"which {sum(p.numel() for p in outside):,} outside of the backbone; the network has "
        f"{total:,}"
    )
    return norms, note


def _parameters_outside(model: nn.Module, body: dict[str, nn.Module]) -> list[nn.Parameter]:
    inside = {id(p) for part in body.values() for p in part.parameters()}
    return [p for p in model.parameters() if id(p) not in inside]


def _named_parts(body: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Returns every module of the backbone by its name in the whole network."""
    return {
        f"{name}.{inner}" if inner else name: part
        for name, module in body.items()
        for inner, part in module.named_modules()
    }


def _find_targets(body: dict[str, nn.Module], patterns: str) -> list[str]:
    """Returns the names of the layers to adapt: those that match a pattern."""
    known = [name for name, part in _named_parts(body).items() if _is_adaptable(part)]
    chosen: dict[str, None] = {}
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        names = [name for name in known if fnmatchcase(name, pattern)]
        if not names:
            hint = nearest(pattern, known) or f"; the first are {', '.join(known[:4])}"
            raise UsageError(
                f"model.lora.targets: {pattern!r} matches no linear layer or 1x1 convolution of "
                f"the backbone{hint}"
            )
        chosen |= dict.fromkeys(names)
    return list(chosen)


def _is_adaptable(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def _configure(peft: Any, settings: Lora, names: list[str]) -> Any:
    targets = "|".join(map(re.escape, names))  # a text is a pattern of whole names
    if settings.kind == "ia3":
        return peft.IA3Config(target_modules=targets, feedforward_modules=[])
    rank = settings.rank
    alpha = rank if settings.alpha is None else settings.alpha
    if settings.kind == "loha":
        return peft.LoHaConfig(r=rank, alpha=alpha, target_modules=targets)
    use_dora = settings.kind == "dora"
    return peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, use_dora=use_dora)
