"""Creates timm's optimizers by name."""

from typing import Any

import torch
from timm.optim import list_optimizers
from torch import nn

from spanets.recipe import Optim
from spanets.training.muon import creator_of
from spanets_runtime.errors import UsageError, first_line, nearest


def check_optimizer(name: str) -> None:
    """Raises UsageError for a name that timm does not know."""
    known = [str(name) for name in list_optimizers()]
    if name not in known:
        raise UsageError(f"optim.name: unknown optimizer {name!r}{nearest(name, known)}")


def make_optimizer(
    parameters: nn.Module | list[dict[str, Any]], settings: Optim
) -> torch.optim.Optimizer:
    """Returns the optimizer of a recipe for a model, or for parameter groups.

    Raises:
        UsageError: the optimizer is unknown or cannot be used here.
    """
    name = settings.name
    check_optimizer(name)
    scale = settings.batch_size / settings.lr_batch_size if settings.lr_batch_size else 1.0
    try:
        optimizer = creator_of(name)(
            parameters,
            opt=name,
            lr=settings.lr * scale,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
            betas=settings.betas,
        )
    # Some optimizers of timm need a package, a GPU, or settings that recipes do not have.
    except (ImportError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"optim.name {name!r} cannot be used here: {first_line(error)}") from error
    if getattr(optimizer, "is_second_order", False):
        raise UsageError(f"optim.name {name!r} needs second derivatives; choose another")
    return optimizer
