"""The optimizer of a recipe: timm's, by name."""

from functools import lru_cache
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, muon
from torch import Tensor, nn

from spanets.recipe import Optim
from spanets_runtime.errors import UsageError, first_line, nearest

BFLOAT16_SIDE = 256
"""From this shorter side of a matrix on, its products gain by bfloat16 on a CPU that has it."""

_newton_schulz = muon.zeropower_via_newtonschulz


def check_optimizer(name: str) -> None:
    """Raises UsageError for a name that timm does not know."""
    known = [str(name) for name in list_optimizers()]
    if name not in known:
        raise UsageError(f"optim.name: unknown optimizer {name!r}{nearest(name, known)}")


def make_optimizer(
    parameters: nn.Module | list[dict[str, Any]], settings: Optim
) -> torch.optim.Optimizer:
    """Returns the optimizer of a recipe for a model, or for groups of parameters.

    Raises:
        UsageError: unknown, or one that cannot be used here.
    """
    name = settings.name
    check_optimizer(name)
    scale = settings.batch_size / settings.lr_batch_size if settings.lr_batch_size else 1.0
    # timm offers no setting for this: its loop calls the function by its global name.
    muon.zeropower_via_newtonschulz = orthogonalize  # type: ignore[assignment]
    try:
        optimizer = create_optimizer_v2(
            parameters,
            opt=name,
            lr=settings.lr * scale,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
            betas=settings.betas,
        )
    # Some of timm's optimizers need a package, a GPU, or settings that recipes do not have.
    except (ImportError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"optim.name {name!r} cannot be used here: {first_line(error)}") from error
    if getattr(optimizer, "is_second_order", False):
        raise UsageError(f"optim.name {name!r} needs second derivatives; choose another")
    return optimizer


def orthogonalize(update: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Muon's Newton-Schulz iteration, in float32 where a CPU is slower in bfloat16.

    Most CPUs have no bfloat16 products: there they took five to eight times as long as float32
    ones, and a fifth of a training step of SPANet-nano, two thirds of one of ResNet-18. On those
    that have them they take half as long, but for small matrices, where converting costs more.
    """
    small = min(update.shape[-2:]) < BFLOAT16_SIDE
    if update.device.type == "cpu" and (small or not has_bfloat16_products()):
        kwargs["dtype"] = torch.float32
    return _newton_schulz(update, *args, **kwargs)


@lru_cache(maxsize=1)
def has_bfloat16_products() -> bool:
    """Tells whether this CPU has instructions for them; versions of torch that cannot say: no."""
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
