"""Creates timm's optimizers by name."""

from typing import Any

import torch
from timm.optim import get_optimizer_info, list_optimizers
from torch import nn

from spanets.recipe import Optim
from spanets.training.muon import creator_of
from spanets_runtime.errors import UsageError, first_line, nearest

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers with a fused kernel for CPUs; on a GPU torch chooses the fastest itself."""


def check_optimizer(name: str) -> None:
    """Raises UsageError for a name that timm does not know."""
    known = [str(name) for name in list_optimizers()]
    if name not in known:
        raise UsageError(f"optim.name: unknown optimizer {name!r}{nearest(name, known)}")


def describe_lowered(settings: Optim) -> list[str]:
    """Returns a line for each end of the schedule that is lowered to the learning rate."""
    effects = {
        "warmup_lr": "there is no warm-up",
        "min_lr": "the rate does not fall at the end; set a lower one",
    }
    return [
        f"optim.{name} {value:g} is above the learning rate and lowered to it, "
        f"{settings.peak_lr:g}: {effects[name]}"
        for name, value in settings.rates_above().items()
    ]


def make_optimizer(
    parameters: nn.Module | list[dict[str, Any]], settings: Optim, fused: bool = True
) -> torch.optim.Optimizer:
    """Returns the optimizer of a recipe for a model, or for parameter groups.

    Args:
        parameters: A model, or its parameter groups.
        settings: Name, learning rate and the like.
        fused: Whether parameters on a CPU may be updated by torch's fused kernels, which take a
            third of the time: one pass over each parameter instead of a dozen. Lightning does not
            clip gradients in mixed precision for these.

    Raises:
        UsageError: the optimizer is unknown or cannot be used here.
    """
    name = settings.name
    check_optimizer(name)
    extra = {"fused": True} if fused and _has_fused_kernel(name, parameters) else {}
    try:
        optimizer = creator_of(name)(
            parameters,
            opt=name,
            lr=settings.peak_lr,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
            betas=settings.betas,
            **extra,
        )
    # Some optimizers of timm need a package, a GPU, or settings that recipes do not have.
    except (ImportError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"optim.name {name!r} cannot be used here: {first_line(error)}") from error
    if getattr(optimizer, "is_second_order", False):
        raise UsageError(f"optim.name {name!r} needs second derivatives; choose another")
    return optimizer


def _has_fused_kernel(name: str, parameters: nn.Module | list[dict[str, Any]]) -> bool:
    """Returns whether torch can update all of these parameters on the CPU in one pass each."""
    if get_optimizer_info(name).opt_class not in FUSED:
        return False
    if isinstance(parameters, nn.Module):
        each = list(parameters.parameters())
    else:
        each = [one for group in parameters for one in group["params"]]
    return all(p.device.type == "cpu" and p.is_floating_point() for p in each if p.requires_grad)
