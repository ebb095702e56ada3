"""Muon's orthogonalization on CPUs, for timm's optimizer of that name."""

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
"""From this ratio of a matrix's sides on, iterating on its Gram matrix takes less time."""

RENEWED_AFTER = 5
"""Steps on one Gram matrix: each enlarges its rounding errors up to some twentyfold."""

_on_the_matrix = muon.zeropower_via_newtonschulz


def creator_of(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Returns timm's function that creates an optimizer; Muon's variants call `orthogonalize`."""
    info = get_optimizer_info(name)
    if info.opt_class is not muon.Muon:
        return create_optimizer_v2
    registry = OptimizerRegistry()
    registry.register(replace(info, opt_class=_load_muon()))
    return registry.create_optimizer


@cache
def _load_muon() -> type[torch.optim.Optimizer]:
    # timm's class has no setting for the iteration: it calls a function of its own module. So this
    # loads that module a second time and sets the function there; timm's own stays as it is.
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
    """Brings the singular values of an update near one by Newton-Schulz steps (Jordan, 2024).

    On a CPU it differs from timm's in two ways, in time but not in result: it computes in float32,
    because most CPUs have no bfloat16 products and take five to eight times as long for them, and
    for elongated matrices, such as a convolution's, it iterates on the smaller Gram matrix.

    Args:
        update: (m, n), or a batch of them.
        steps: Number of steps.
        coefficients: (a, b, c) of each step X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X; the last one is
            repeated.
        eps: Least norm to divide by.
        safety_factor: What the norm is multiplied by before the update is divided by it.
        others: For timm's function.
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
    """Returns what the steps multiply a matrix by, from the left.

    A step multiplies by P = a + b G + c G², a polynomial of the Gram matrix G = X Xᵀ, and makes
    G <- P G P; so all steps together need no product with the longer side.
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
