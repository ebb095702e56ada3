"""Optimizers by name, and Muon's number format."""

import pytest
import torch
from timm.optim import muon
from torch import nn

from spanets.recipe import Optim
from spanets.tasks import optim
from spanets.tasks.optim import make_optimizer, orthogonalize
from spanets_runtime.errors import UsageError


@pytest.mark.parametrize("able", [False, True])
@pytest.mark.parametrize("side", [optim.BFLOAT16_SIDE - 1, optim.BFLOAT16_SIDE])
def test_large_matrices_are_bfloat16_where_the_cpu_has_it(monkeypatch, side, able) -> None:
    monkeypatch.setattr(optim, "has_bfloat16_products", lambda: able)
    result = orthogonalize(torch.randn(side, 2 * side), 1, [(2.0, -1.5, 0.5)])
    wide = not able or side < optim.BFLOAT16_SIDE
    assert result.dtype == (torch.float32 if wide else torch.bfloat16)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_muon_iterates_in_float32_on_a_cpu(shape: tuple[int, int]) -> None:
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(update, 30, [(2.0, -1.5, 0.5)])  # a quintic that converges to 1
    assert result.dtype == torch.float32
    left, _, right = torch.linalg.svd(update, full_matrices=False)
    torch.testing.assert_close(result, left @ right, rtol=0, atol=1e-4)


def test_muon_steps_by_that_iteration() -> None:
    layer = nn.Linear(6, 4, bias=False)
    optimizer = make_optimizer(layer, Optim(name="muon", lr=0.1, weight_decay=0.0))
    before = layer.weight.detach().clone()
    layer(torch.randn(3, 6)).square().sum().backward()
    assert layer.weight.grad is not None
    group = optimizer.param_groups[0]
    factors = muon.resolve_ns_coefficients(group["ns_coefficients"], muon._COEFFICIENTS)
    expected = orthogonalize(layer.weight.grad, group["ns_steps"], factors)
    optimizer.step()
    step = before - layer.weight.detach()
    # Only the directions: the first step's length depends on momentum and shape.
    torch.testing.assert_close(step / step.norm(), expected / expected.norm(), rtol=0, atol=2e-5)


def test_an_unknown_optimizer_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'adamv'; did you mean 'adam'"):
        make_optimizer(nn.Linear(2, 2), Optim(name="adamv"))
