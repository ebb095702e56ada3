"""The inference form is the same function with less to do: timm's `reparameterize_model`."""

from collections import Counter

import pytest
import timm
import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

from spanets.backbones.block import Block

OPTIONS = {
    "spanet_nano": [
        {"branch_scale": "layer_scale"},
        {"branch_scale": "none", "learn_balance": "channel", "learn_ring": True},
        {"learn_balance": "gate"},
        {"ring": None},
        {"aggregation": "hadamard"},
        {"spectral_filter": False},
        {"spectral_method": "fft"},
    ],
    "spanetv2_nano_pure": [{"branch_scale": "layer_scale"}, {"scaled_gate": True}],
    "spanetv2_nano_hybrid": [{"scaled_gate": True, "merge": "concatenated"}],
}


def stir(model: nn.Module) -> nn.Module:
    """Gives every factor and offset a value that folding has to get right."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(torch.randn(value.shape, generator=generator) / 4)
    return model.eval()


def error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def assert_same(folded: nn.Module, model: nn.Module, limit: float) -> None:
    like = next(model.parameters())
    for size in [(64, 64), (47, 90)]:
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(like)
        with torch.no_grad():
            assert error(folded(x), model(x)) < limit


def test_every_model(model):
    folded = reparameterize_model(model)
    assert_same(folded, model, 1e-5)  # float32
    for block in folded.modules():
        if isinstance(block, Block):
            assert block.norm1.weight is block.norm1.bias is None
            assert block.norm2.weight is block.norm2.bias is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, given, marks=[pytest.mark.slow] * (i % 2))
        for name, rows in OPTIONS.items()
        for i, given in enumerate(rows)
    ],
)
def test_options(name, options):
    model = stir(timm.create_model(name, num_classes=5, **options)).double()
    folded = reparameterize_model(model)
    assert_same(folded, model, 1e-12)
    assert_same(reparameterize_model(folded), model, 1e-12)  # twice is once
    x = torch.randn(2, 3, 64, 80, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = (m.forward_intermediates(x)[1] for m in (folded, model))
    assert max(map(error, ours, theirs)) < 1e-12
    kinds = Counter(type(module).__name__ for module in folded.modules())
    assert kinds["StarReLU"] == 0
    if options.get("branch_scale"):
        assert kinds["ChannelScale"] == 0


def test_the_model_itself_is_left_alone(shared_small):
    before = {key: value.clone() for key, value in shared_small.state_dict().items()}
    reparameterize_model(shared_small)
    after = shared_small.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_features_and_half_precision(small, build):
    model = stir(build(small, features_only=True))
    folded = reparameterize_model(model)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(folded(x), model(x), strict=True):
            assert error(ours, theirs) < 1e-5
        wide, narrow = folded(x), folded.bfloat16()(x.bfloat16())
        for ours, theirs in zip(narrow, wide, strict=True):
            assert error(ours.float(), theirs) < 0.2
