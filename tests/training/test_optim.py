"""Optimizers by name."""

import copy

import pytest
import timm
import torch
from torch import nn

from spanets.checkpoint import ModelInfo
from spanets.classification.module import Classification
from spanets.recipe import Optim, parse_recipe
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


# ---- rates


@pytest.mark.parametrize("head_lr", [None, 1e-2])
def test_no_rate_rises_above_its_peak(head_lr):
    optim = {"lr": 1e-7, "head_lr": head_lr, "warmup_epochs": 1}
    recipe = parse_recipe({"optim": optim, "trainer": {"epochs": 4}})
    info = ModelInfo("test_resnet", {}, ["a", "b"], {}, {}, "0")
    module = Classification(timm.create_model("test_resnet", num_classes=2), info, recipe, 5)
    (optimizer,), (schedule,) = module.configure_optimizers()
    peaks = [1e-7 * group.get("lr_scale", 1) for group in optimizer.param_groups]
    assert max(peaks) == pytest.approx(head_lr or 1e-7)
    for update in range(25):
        schedule["scheduler"].step_update(update)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert all(0 <= rate <= peak * 1.001 for rate, peak in zip(rates, peaks, strict=True))
    assert module.notes == [
        "optim.warmup_lr 1e-06 is above the learning rate and lowered to it, 1e-07: there is no "
        "warm-up",
        "optim.min_lr 1e-05 is above the learning rate and lowered to it, 1e-07: the rate does "
        "not fall at the end; set a lower one",
    ]
