"""Merging adapters equals what peft computes, on every structure of the registry."""

from copy import deepcopy

import pytest
import torch
from networks import error, images, shallow, structures

from spanets.recipe.sections import Lora
from spanets.weights import WeightsError
from spanets.weights.adapters import merge_adapters, merge_content

KINDS = ("lora", "dora", "loha", "ia3")


def adapted(network, kind, alpha=None):
    """The network with adapters of random values, and its backbone's parameters before."""
    from spanets.training.adapters import add_adapters

    rank = None if kind == "ia3" else 4
    add_adapters(network, Lora(rank=rank, kind=kind, alpha=alpha))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if ".default" in name:
                value += 0.2 * torch.randn(value.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", structures())
def test_merging_equals_the_adapters(name, kind):
    pytest.importorskip("peft")
    plain = shallow(name)
    network = adapted(deepcopy(plain), kind, alpha=None if kind == "ia3" else 6.0)
    merged = deepcopy(plain)
    merged.load_state_dict(merge_adapters(network.state_dict(), 6.0))
    with torch.inference_mode():
        x = images(64, 64, batch=1)
        assert error(network(x), plain(x)) > 1e-3
        assert error(merged(x), network(x)) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_and_head_have_gradients(kind):
    pytest.importorskip("peft")
    network = adapted(shallow("spanet_nano"), kind)
    network(images(64, 64)).sum().backward()
    heads = {name for name, _ in shallow("spanet_nano").named_parameters() if "head" in name}
    for name, value in network.named_parameters():
        is_trained = ".default" in name or name.removeprefix("x") in heads
        assert (value.grad is not None) == is_trained, name


def test_equations():
    """LoRA, DoRA, LoHa and IA3 as their papers write them, on a layer (3, 4); needs no peft."""
    draw = torch.Generator().manual_seed(0)
    w, up, down = (torch.randn(*size, generator=draw) for size in ((3, 4), (3, 2), (2, 4)))
    up2, down2 = torch.randn(3, 2, generator=draw), torch.randn(2, 4, generator=draw)
    lengths, bias = torch.rand(3, generator=draw) + 1, torch.randn(3, generator=draw)
    lora = {"lora_A.default.weight": down, "lora_B.default.weight": up}
    summed = w + 6 / 2 * up @ down
    loha = dict(zip(("w1_a", "w1_b", "w2_a", "w2_b"), (up, down, up2, down2), strict=True))
    for parts, weight, shift in (
        (lora, summed, bias),
        (
            {**lora, "lora_magnitude_vector.default.weight": lengths},
            lengths[:, None] * summed / summed.norm(dim=1, keepdim=True),
            bias,
        ),
        (
            {f"hada_{name}.default": value for name, value in loha.items()},
            w + 6 / 2 * (up @ down) * (up2 @ down2),
            bias,
        ),
        ({"ia3_l.default": lengths[:, None]}, lengths[:, None] * w, lengths * bias),
    ):
        base = {"base_layer.weight": w, "base_layer.bias": bias}
        tensors = {f"a.{name}": value for name, value in {**base, **parts}.items()}
        merged = merge_adapters(tensors, 6.0)
        torch.testing.assert_close(merged, {"a.weight": weight, "a.bias": shift})


def test_an_alpha_of_none_is_the_rank():
    weight, down, up = torch.randn(3, 4), torch.randn(2, 4), torch.randn(3, 2)
    tensors = {
        "a.base_layer.weight": weight,
        "a.lora_A.default.weight": down,
        "a.lora_B.default.weight": up,
        "b.weight": up,
    }
    merged = merge_adapters(tensors, None)
    assert merged.keys() == {"a.weight", "b.weight"}
    torch.testing.assert_close(merged["a.weight"], weight + up @ down)
    torch.testing.assert_close(merge_adapters(tensors, 6)["a.weight"], weight + 3 * up @ down)


@pytest.mark.parametrize(
    "broken",
    [
        {"a.lora_A.default.weight": torch.ones(2, 4)},
        {"a.base_layer.weight": torch.ones(3, 4)},
        {"a.base_layer.weight": torch.ones(3, 4), "a.ia3_l.default": torch.ones(5)},
        {"a.base_layer.weight": torch.ones(3, 4), "a.lora_B.default.weight": torch.ones(3, 1)},
    ],
)
def test_damaged_adapters_are_refused(broken):
    with pytest.raises(WeightsError, match="the adapter of a is damaged"):
        merge_adapters(broken, None)


@pytest.mark.parametrize("alpha", ["8", float("nan"), 1e9])
def test_a_damaged_alpha_is_refused(alpha):
    content = {
        "spanets": {"recipe": {"model": {"lora": {"alpha": alpha}}}},
        "state_dict": {"a.base_layer.weight": torch.ones(1, 1)},
    }
    with pytest.raises(WeightsError, match="alpha is damaged"):
        merge_content(content)
