"""Optimizers by name."""

import copy

import pytest
import timm
import torch
from torch import nn

from spanets.recipe import Optim
from spanets.training.optim import make_optimizer
from spanets_runtime.errors import UsageError


def test_an_unknown_optimizer_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'adamv'; did you mean 'adam'"):
        make_optimizer(nn.Linear(2, 2), Optim(name="adamv"))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_kernels_compute_the_same_updates(name: str) -> None:
    networks = [copy.deepcopy(network) for network in [timm.create_model("spanet_nano")] * 2]
    settings = Optim(name=name, lr=1e-2, weight_decay=0.1)
    optimizers = [make_optimizer(networks[i], settings, fused=i == 1) for i in range(2)]
    assert [bool(optimizer.defaults["fused"]) for optimizer in optimizers] == [False, True]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for pair in zip(*(network.parameters() for network in networks), strict=True):
            gradient = torch.randn(pair[0].shape, generator=generator)
            for parameter in pair:
                parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_only_optimizers_with_a_fused_kernel_are_fused() -> None:
    for name in ("muon", "lamb", "adamax", "rmsprop"):
        assert not make_optimizer(nn.Linear(2, 2), Optim(name=name)).defaults.get("fused")
    with torch.device("meta"):
        layer = nn.Linear(2, 2)
    assert not make_optimizer(layer, Optim(name="adamw")).defaults["fused"]
