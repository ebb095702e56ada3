"""Muon's orthogonalization is timm's, on another path."""

from copy import deepcopy
from functools import partial
from unittest.mock import Mock

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim import create_optimizer_v2
from timm.optim import muon as timms
from torch import nn

from spanets.recipe import Optim
from spanets.training import muon
from spanets.training.muon import ELONGATED, orthogonalize
from spanets.training.optim import make_optimizer

QUINTIC = timms._COEFFICIENTS["quintic"]
CONVERGING = [(2.0, -1.5, 0.5)]
SHAPES = [(8, 8), (24, 8), (8, 24), (5, 90), (90, 5), (1, 7)]


@settings(max_examples=60, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 40), st.integers(1, 200)),
    steps=st.integers(1, 12),
    name=st.sampled_from(sorted(timms._COEFFICIENTS)),
    decay=st.floats(0.0, 4.0),
    seed=st.integers(0, 2**16),
)
def test_it_is_timms_in_float64(sides, steps, name, decay, seed) -> None:
    noise = torch.Generator().manual_seed(seed)
    update = torch.randn(sides, generator=noise)
    # Of any condition: singular values fall by up to four orders of magnitude.
    update = update * torch.logspace(0, -decay, sides[1])
    factors = timms.resolve_ns_coefficients(name, timms._COEFFICIENTS)
    expected = muon._on_the_matrix(update.double(), steps, factors, dtype=torch.float64)
    found = orthogonalize(update, steps, factors)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_many_steps_converge_to_the_polar_factor(shape: tuple[int, int]) -> None:
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(update, 30, CONVERGING)
    left, _, right = torch.linalg.svd(update, full_matrices=False)
    torch.testing.assert_close(result, left @ right, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_without_full_rank_stays_finite(shape: tuple[int, int]) -> None:
    column, row = (torch.randn(side, 1) for side in shape)
    for update in (torch.zeros(shape), column @ row.mT):
        for steps in (5, 40):
            result = orthogonalize(update, steps, QUINTIC)
            assert torch.linalg.matrix_norm(result, 2) < 1.2  # of rounding errors, too


def test_elongated_matrices_and_no_others_go_by_their_gram_matrix(monkeypatch) -> None:
    seen = []
    plain = muon._on_the_matrix
    monkeypatch.setattr(
        muon, "_on_the_matrix", lambda *a, **k: seen.append(a[0].shape) or plain(*a, **k)
    )
    for shape in [(4, 4 * ELONGATED), (4 * ELONGATED, 4), (4, 4 * ELONGATED - 1), (2, 4, 40)]:
        assert orthogonalize(torch.randn(shape), 5, QUINTIC).shape == shape
    assert seen == [(4, 4 * ELONGATED - 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_is_its_matrices(shape: tuple[int, int]) -> None:
    updates = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([orthogonalize(update, 5, QUINTIC) for update in updates])
    torch.testing.assert_close(orthogonalize(updates, 5, QUINTIC), one_by_one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["muon", "nmuon"])
def test_steps_by_shape_are_timms_steps(name: str, monkeypatch) -> None:
    """Compares whole networks after three steps, with timm's iteration in float64."""
    exact = partial(timms.zeropower_via_newtonschulz, dtype=torch.float64)
    monkeypatch.setattr(timms, "zeropower_via_newtonschulz", exact)
    ours = timm.create_model("spanet_nano", num_classes=3)
    theirs = deepcopy(ours)
    optimizers = [
        make_optimizer(ours, Optim(name=name, lr=1e-2, weight_decay=0.1)),
        create_optimizer_v2(theirs, name, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.999)),
    ]
    noise = torch.Generator().manual_seed(0)
    for _ in range(3):
        for pair in zip(ours.parameters(), theirs.parameters(), strict=True):
            gradient = torch.randn(pair[0].shape, generator=noise)
            for parameter in pair:
                parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["muon", "nmuon", "adamuon", "nadamuon"])
def test_every_variant_of_timm_gets_it_and_timms_own_stays(name: str, monkeypatch) -> None:
    plain = timms.zeropower_via_newtonschulz
    layer = nn.Linear(6, 4)
    optimizer = make_optimizer(layer, Optim(name=name, lr=0.1))
    assert timms.zeropower_via_newtonschulz is plain
    assert type(optimizer) is not timms.Muon

    theirs = create_optimizer_v2(copy := deepcopy(layer), name, lr=0.1, weight_decay=0.05)
    called = Mock(side_effect=muon.orthogonalize)
    monkeypatch.setitem(type(optimizer).__init__.__globals__, "zeropower_via_newtonschulz", called)
    monkeypatch.setattr(muon, "orthogonalize", called)
    for model, taken in ((layer, optimizer), (copy, theirs)):
        model(torch.ones(3, 6)).square().sum().backward()
        taken.step()
    assert called.call_count == 1
    # timm's iterates in bfloat16.
    torch.testing.assert_close(layer.weight, copy.weight, rtol=0, atol=2e-2)
    theirs.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("width", [6, 24])
def test_muon_steps_by_that_iteration(width: int) -> None:
    layer = nn.Linear(width, 4, bias=False)
    optimizer = make_optimizer(layer, Optim(name="muon", lr=0.1, weight_decay=0.0))
    before = layer.weight.detach().clone()
    # More images than outputs: the gradient has full rank, and no direction is of rounding alone.
    layer(torch.randn(8, width)).square().sum().backward()
    assert layer.weight.grad is not None
    group = optimizer.param_groups[0]
    factors = timms.resolve_ns_coefficients(group["ns_coefficients"], timms._COEFFICIENTS)
    expected = orthogonalize(layer.weight.grad, group["ns_steps"], factors)
    optimizer.step()
    step = before - layer.weight.detach()
    # Only the directions: the first step's length depends on momentum and shape.
    torch.testing.assert_close(step / step.norm(), expected / expected.norm(), rtol=0, atol=2e-5)
