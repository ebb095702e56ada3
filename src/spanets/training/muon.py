"""A faster step of timm's Muon optimizer on CPUs, with the same function."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec, module_from_spec
from itertools import islice
from typing import Any

import torch
from timm.optim import OptimizerRegistry, create_optimizer_v2, get_optimizer_info, muon
from torch import Tensor, nn
from torch.optim.adamw import adamw

Coefficients = Sequence[tuple[float, float, float]]

ELONGATED = 3
"""Lowest ratio of a matrix's sides at which iterating on its Gram matrix is faster."""

RENEWED_AFTER = 5
"""Steps before the Gram matrix is recomputed; a step multiplies its rounding errors by up to 20."""

_on_the_matrix = muon.zeropower_via_newtonschulz
_matrix_by_matrix = muon.muon
_tensor_by_tensor: Any = muon.adamw
_fused_adamw: Any = adamw


def creator_of(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Returns timm's function that creates an optimizer; Muon variants are faster on a CPU."""
    info = get_optimizer_info(name)
    if info.opt_class is not muon.Muon:
        return create_optimizer_v2
    registry = OptimizerRegistry()
    registry.register(replace(info, opt_class=_load_muon()))
    return registry.create_optimizer


@cache
def _load_muon() -> type[torch.optim.Optimizer]:
    # timm's class calls these as globals of its module, with no setting for them. So load a second
    # copy of that module and replace the functions there; timm's own module stays unchanged.
    spec = find_spec(muon.__name__)
    assert spec is not None
    assert spec.loader is not None
    ours: Any = module_from_spec(spec)
    spec.loader.exec_module(ours)
    ours.zeropower_via_newtonschulz = orthogonalize
    ours.muon = update_by_shape
    ours.adamw = update_vectors
    return ours.Muon


def update_by_shape(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_bufs: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    **others: Any,
) -> None:
    """Updates matrices as timm's `muon` does, those of one shape together.

    A small network has a hundred matrices of a dozen shapes. One by one, most of the time goes into
    calling operators.

    Args:
        params: Weights, each of two dimensions or more.
        grads: Their gradients.
        momentum_bufs: Their momenta.
        lr, weight_decay, momentum, nesterov: Settings of the update.
        others: Other arguments of timm's function, such as those of the iteration.
    """
    known: dict[str, Any] = {
        "lr": lr,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "nesterov": nesterov,
    }
    tensors = [*params, *grads, *momentum_bufs]
    plain = all(t.device.type == "cpu" and type(t) in (Tensor, nn.Parameter) for t in tensors)
    if not plain or isinstance(lr, Tensor) or others["conv_mode"] != "flatten":
        _matrix_by_matrix(params, grads, momentum_bufs, **known, **others)
        return
    factors = muon.resolve_ns_coefficients(others["ns_coefficients"], muon._COEFFICIENTS)
    limits = {name: others[name] for name in ("eps", "safety_factor", "scale_eps")}
    torch._foreach_mul_(params, 1 - lr * weight_decay)
    torch._foreach_lerp_(momentum_bufs, grads, 1 - momentum)
    updates = torch._foreach_lerp(grads, momentum_bufs, momentum) if nesterov else momentum_bufs
    alike = defaultdict(list)
    for param, update in zip(params, updates, strict=True):
        alike[len(update), update[0].numel()].append((param, update))
    for shape, pairs in alike.items():
        matrices = torch.stack([update.reshape(shape) for _, update in pairs])
        steps = orthogonalize(matrices, others["ns_steps"], factors, **limits)
        rule = others["adjust_lr_fn"]
        scale = muon.get_lr_scale(torch.Size(shape), rule) if rule else 1.0
        for (param, _), step in zip(pairs, steps, strict=True):
            param.add_(step.reshape(param.shape), alpha=-lr * scale)


def update_vectors(
    params: list[Tensor],
    *tensors: list[Tensor],
    foreach: bool | None = None,
    caution: bool = False,
    max_lr: float | None = None,
    **others: Any,
) -> None:
    """Updates the parameters that are no matrices as timm's `adamw` does, by torch's fused kernel.

    Args:
        params: Parameters.
        tensors: Their gradients, averages and counts of steps.
        foreach, caution, max_lr: See timm's function; only their defaults are fused.
        others: Other arguments of timm's function, which are those of torch's.
    """
    if caution or max_lr is not None or any(p.device.type != "cpu" for p in params):
        given = {"foreach": foreach, "caution": caution, "max_lr": max_lr}
        _tensor_by_tensor(params, *tensors, **given, **others)
    else:
        _fused_adamw(params, *tensors, fused=True, **others)


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
    plain = type(update) is Tensor and not others.get("scale_eps")
    if not plain or long < ELONGATED * short:
        others["dtype"] = torch.float32
        return _on_the_matrix(update, steps, coefficients, eps, safety_factor, **others)  # type: ignore[arg-type]
    wide = (update if update.shape[-2] == short else update.mT).float()
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) * safety_factor).clamp(min=eps)
    each = iter([*coefficients[:steps], *[coefficients[-1]] * (steps - len(coefficients))])
    while some := list(islice(each, RENEWED_AFTER)):
        wide = _polynomial_of_gram(wide @ wide.mT, some) @ wide
    return wide if update.shape[-2] == short else wide.mT


def _polynomial_of_gram(gram: Tensor, coefficients: Coefficients) -> Tensor:
    """Returns the matrix that applies all steps when it multiplies X from the left.

    A step multiplies X by P = a + b G + c G², a polynomial of the Gram matrix G = X Xᵀ. The next
    Gram matrix is P G P, so the steps need no product with the longer side.
    """
    product = None
    add_product = torch.baddbmm if gram.ndim > 2 else torch.addmm
    for position, (a, b, c) in enumerate(coefficients, 1):
        factor = add_product(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if position < len(coefficients):
            gram = factor @ gram @ factor
    assert product is not None
    return product
