"""Faster orthogonalization on CPUs for timm's Muon optimizer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec, module_from_spec
from itertools import islice
from typing import Any

import torch
from timm.optim import OptimizerRegistry, create_optimizer_v2, get_optimizer_info, muon
from torch import Tensor

Coefficients = Sequence[tuple[float, float, float]]

ELONGATED = 3
"""Lowest ratio of a matrix's sides at which iterating on its Gram matrix is faster."""

RENEWED_AFTER = 5
"""Steps before the Gram matrix is recomputed; a step multiplies its rounding errors by up to 20."""

_on_the_matrix = muon.zeropower_via_newtonschulz


def creator_of(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Returns timm's function that creates an optimizer; Muon variants use `orthogonalize`."""
    info = get_optimizer_info(name)
    if info.opt_class is not muon.Muon:
        return create_optimizer_v2
    registry = OptimizerRegistry()
    registry.register(replace(info, opt_class=_load_muon()))
    return registry.create_optimizer


@cache
def _load_muon() -> type[torch.optim.Optimizer]:
    # timm's class calls the iteration as a global of its module, with no setting for it. So load a
    # second copy of that module and replace the function there; timm's own module stays unchanged.
    spec = find_spec(muon.__name__)
    assert spec is not None
    assert spec.loader is not None
    ours = module_from_spec(spec)
    spec.loader.exec_module(ours)
    ours.zeropower_via_newtonschulz = orthogonalize  # type: ignore[attr-defined]
    return ours.Muon


def orthogonalize(
    update: Tensor,
    steps: int,
    coefficients: Coefficients,
    eps: float = muon.MUON_EPS,
    safety_factor: float = 1.0,
    **others: Any,
) -> Tensor:
    """Moves the singular values of an update towards one with Newton-Schulz steps (Jordan, 2024).

    On a CPU it computes the same function as timm's, but faster. It uses float32, because most CPUs
    have no bfloat16 products and take five to eight times as long for them. For elongated matrices,
    such as those of convolutions, it iterates on the smaller Gram matrix.

    Args:
        update: Matrix (m, n), or a batch of matrices.
        steps: Number of steps.
        coefficients: (a, b, c) of each step X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X; the last one is
            repeated.
        eps: Smallest norm to divide by.
        safety_factor: Factor of the norm that the update is divided by.
        others: Other arguments of timm's function.
    """
    if update.device.type != "cpu":
        return _on_the_matrix(update, steps, coefficients, eps, safety_factor, **others)  # type: ignore[arg-type]
    short, long = sorted(update.shape[-2:])
    plain = type(update) is Tensor and update.ndim == 2 and not others.get("scale_eps")
    if not plain or long < ELONGATED * short:
        others["dtype"] = torch.float32
        return _on_the_matrix(update, steps, coefficients, eps, safety_factor, **others)  # type: ignore[arg-type]
    wide = (update if update.shape[0] == short else update.mT).float()
    wide = wide / (wide.norm() * safety_factor).clamp(min=eps)
    each = iter([*coefficients[:steps], *[coefficients[-1]] * (steps - len(coefficients))])
    while some := list(islice(each, RENEWED_AFTER)):
        wide = _polynomial_of_gram(wide @ wide.mT, some) @ wide
    return wide if update.shape[0] == short else wide.mT


def _polynomial_of_gram(gram: Tensor, coefficients: Coefficients) -> Tensor:
    """Returns the matrix that applies all steps when it multiplies X from the left.

    A step multiplies X by P = a + b G + c G², a polynomial of the Gram matrix G = X Xᵀ. The next
    Gram matrix is P G P, so the steps need no product with the longer side.
    """
    product = None
    for position, (a, b, c) in enumerate(coefficients, 1):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if position < len(coefficients):
            gram = factor @ gram @ factor
    assert product is not None
    return product
