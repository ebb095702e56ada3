"""Fused twins compute what the plain classes compute, and step aside for whatever was changed."""

import copy
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
from networks import (
    CHOICES,
    error,
    images,
    plain_layers,
    results,
    shallow,
    short,
    stirred,
    structures,
)
from timm.layers import GroupNorm1
from torch import Tensor, fx, nn

from spanets.bench.costs import count_macs
from spanets.kernels.forms import block_diagonal, call, is_unmodified, pooled_conv
from spanets.kernels.fused import FusedContext, FusedSPAM, fuse
from spanets.mixers import SPAM
from spanets.spectral import RING, basis_gain, spectral_pool

# float32 sums in another order, over a network.
ROUNDING = 1e-5


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# ---- the same function


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (77, 51)])
def test_twins_of_every_registered_network(name: str, size, training: bool) -> None:
    model, x = stirred(shallow(name)).train(training), images(*size).requires_grad_()

    def run() -> list[Tensor]:
        out = model(x)
        return [out, *torch.autograd.grad(out.square().sum(), [x, *model.parameters()])]

    fused = run()
    with plain_layers():
        plain = run()
    for ours, theirs in zip(fused, plain, strict=True):
        assert error(ours, theirs) < 10 * ROUNDING  # of gradients, too


@pytest.mark.parametrize(("name_", "arguments"), CHOICES, ids=str)
def test_twins_of_every_option(name_: str, arguments) -> None:
    model, x = short(name_, **arguments), images(64, 80)
    with torch.no_grad():
        ours = results(model(x))
        with plain_layers():
            theirs = results(model(x))
    assert max(error(a, b) for a, b in zip(ours, theirs, strict=True)) < ROUNDING


@pytest.mark.parametrize("name_", structures())
def test_a_network_without_twins_has_the_same_weights(name_: str) -> None:
    torch.manual_seed(0)
    ours = timm.create_model(name_)
    torch.manual_seed(0)
    theirs = timm.create_model(name_, fused=False)
    assert str(ours) == str(theirs)
    for (key, a), (other, b) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(a, b)
    kinds = {type(module).__module__ for module in theirs.modules()}
    assert "spanets.kernels.fused" not in kinds
    assert "spanets.kernels.fused" in {type(module).__module__ for module in ours.modules()}


def test_copies_and_pickles_are_twins() -> None:
    model, x = shallow("spanet_nano"), images(64, 64)
    with torch.no_grad():
        before = model(x)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(again(x), before)
            assert any(isinstance(module, FusedSPAM) for module in again.modules())


def test_off_every_leaf_is_called() -> None:
    """Counters of operations look at the classes of layers, and at calls."""
    model = timm.create_model("spanet_nano").eval()
    counted = {nn.Conv2d: 0, nn.Linear: 0}

    def count(layer, given, out):
        counted[type(layer)] += layer.weight[0].numel() * out.numel()

    for layer in model.modules():
        if type(layer) in counted:
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(images(224, 224, batch=1))
    assert sum(counted.values()) == pytest.approx(count_macs(model), rel=0.04)
    # What is left are the thin products of the filters, which are no layers.
    weighted = [module for module in model.modules() if type(module) in counted]
    norms = [module for module in model.modules() if isinstance(module, GroupNorm1)]
    numbers = sum(p.numel() for module in (*weighted, *norms) for p in module.parameters())
    assert numbers > 0.99 * sum(
        p.numel() for p in model.parameters()
    )  # but for biases of gates, and ResScale


# ---- when a twin computes


class Adapter(nn.Module):
    """What adapters put in the place of a layer: it has the layer's weight, and does more."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.layer(x)


class Packed(Tensor):
    """What quantizers put in the place of a weight."""


def test_what_is_unmodified():
    layer = nn.Conv2d(4, 4, 1)
    assert is_unmodified(layer, nn.Conv2d)
    assert not is_unmodified(layer, nn.Linear)
    assert not is_unmodified(Adapter(layer), nn.Conv2d)
    handle = layer.register_forward_hook(lambda *call: None)
    assert not is_unmodified(layer, nn.Conv2d)
    handle.remove()
    assert is_unmodified(layer, nn.Conv2d)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Packed))
    assert not is_unmodified(layer, nn.Conv2d)


@torch.no_grad()
def test_a_mixer_calls_what_stands_in_a_layers_place_traced_or_not():
    mixer, x = fuse(SPAM(6)), torch.randn(1, 6, 5, 7)
    traced = fx.symbolic_trace(mixer)
    assert torch.allclose(traced(x), mixer(x), atol=1e-6)
    before = mixer(x)
    mixer.conv_row = Adapter(mixer.conv_row)
    after = mixer(x)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(fx.symbolic_trace(mixer)(x), after, atol=1e-6)


@torch.no_grad()
def test_a_context_steps_aside():
    context, x = fuse(SPAM(6)).context, torch.randn(1, 6, 5, 7)
    assert type(context) is FusedContext
    assert context.is_fused(x)
    before, seen = context(x), []
    context.proj.register_forward_hook(lambda *call: seen.append(call))
    assert not context.is_fused(x)
    torch.testing.assert_close(context(x), before)
    assert len(seen) == 1


# ---- the forms of single layers


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_norm_of_frozen_maps_has_gradients(layout, process):
    """In a process of its own: torch up to 2.13 ended it where maps lie in channels_last."""

    def differ() -> int:
        norm, x = GroupNorm1(8), torch.randn(2, 8, 5, 7).contiguous(memory_format=layout)
        call(norm, x).square().sum().backward()
        ours = norm.weight.grad.clone()
        norm.weight.grad = None
        norm(x.clone().requires_grad_()).square().sum().backward()
        return int(not torch.allclose(ours, norm.weight.grad, rtol=1e-4))

    assert process(differ).wait() == (0, "", "")


@pytest.mark.parametrize("learns", ["norm", "output_norms", "stages.3", "blocks.0.norm2"])
def test_layers_above_frozen_ones_learn(learns, process):
    def differ() -> int:
        arguments = {"features_only": True} if learns == "output_norms" else {}
        more = {"output_norm": True} if learns == "output_norms" else {}
        torch.manual_seed(0)
        model = shallow("spanet_nano", **arguments, **more)
        model = model.to(memory_format=torch.channels_last).train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(f"{learns}." in f"{name}.")
        out = model(images(64, 64))
        sum(part.square().sum() for part in results(out)).backward()
        return int(not all(p.grad is not None for p in model.parameters() if p.requires_grad))

    assert process(differ).wait() == (0, "", "")


def test_a_block_diagonal_product_is_a_grouped_one():
    layer, x = nn.Conv2d(12, 24, 1, groups=3, bias=False), torch.randn(2, 12, 5, 7)
    full = block_diagonal(layer.weight, 3)
    assert full.shape == (24, 12, 1, 1)
    torch.testing.assert_close(F.conv2d(x, full), layer(x))
    ours = torch.autograd.grad(F.conv2d(x, full).square().sum(), layer.weight)
    theirs = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("ring", [RING, None])
def test_pooled_convolution_is_pooling_and_convolution(layout, ring):
    x = maps(2, 8, 7, 6).contiguous(memory_format=layout)
    weight, bias, balance = maps(5, 8), maps(5), maps(8).sigmoid()
    expected = F.conv2d(spectral_pool(x, 2, balance, ring, "fft"), weight[..., None, None], bias)
    high, gain = weight * (1 - balance), basis_gain(x, 2, balance, ring)
    ours = pooled_conv(x, weight, high, bias, 2, gain, closed=ring is not None)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    assert ours.is_contiguous(memory_format=layout)
