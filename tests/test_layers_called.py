"""Every layer of every network is called: what watches, replaces or moves layers has its effect.

Hooks, adapters, pruning, parametrizations, offloading and gradients of single images rest on it.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from absent_gpu import taken
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
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from spanets.backbones.dense import DenseBackbone
from spanets.backbones.layers import StarMlp
from spanets.detection import KINDS, Settings, make_detector
from spanets.detection.network.exporting import to_dense
from spanets.kernels.fused import fuse
from spanets.segmentation import make_segmenter

# A layer without an effect would change nothing at all; the least of what one does is far above
# what float32 rounds.
LEAST_EFFECT = 1e-3

Layers = dict[str, nn.Module]


def leaves(model: nn.Module) -> Layers:
    return {name: m for name, m in model.named_modules() if not list(m.children())}


def weighted(model: nn.Module) -> Layers:
    kinds = nn.Conv2d | nn.Linear
    return {name: m for name, m in leaves(model).items() if isinstance(m, kinds)}


def silent(model: nn.Module, run: Callable[[], Any]) -> set[str]:
    """Leaf layers whose hooks do not fire."""
    unseen = set(leaves(model))
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: unseen.discard(name))
        for name, layer in leaves(model).items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return unseen


# ---- hooks


def test_hooks_of_every_registered_network_fire(name: str) -> None:
    """Of one block a stage: all of a stage's blocks are made alike."""
    model, x = shallow(name, device="meta"), torch.empty(2, 3, 64, 64, device="meta")
    for mode in (True, False):
        assert not silent(model.train(mode), lambda: model(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name_", "arguments"), CHOICES, ids=str)
def test_hooks_of_every_option_fire(name_: str, arguments: dict[str, Any], training: bool) -> None:
    model = short(name_, **arguments).train(training)
    assert not silent(model, lambda: model(images(64, 64)))


@pytest.mark.parametrize("arguments", [{}, {"output_norm": True}], ids=str)
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (0, 2), (3,)])
@pytest.mark.parametrize("name_", structures())
def test_hooks_of_networks_of_maps_fire(
    name_: str, out_indices: tuple[int, ...], arguments: dict[str, Any]
) -> None:
    model = shallow(name_, features_only=True, out_indices=out_indices, **arguments)
    for mode in (True, False):
        assert not silent(model.train(mode), lambda: model(images(64, 64)))
    if arguments:  # it holds the network
        inner = model.model
        assert torch.equal(inner.forward_features(images(64, 64)), inner(images(64, 64)))


@pytest.mark.parametrize("name_", structures())
def test_hooks_of_the_inference_form_fire(name_: str) -> None:
    model = reparameterize_model(shallow(name_))
    assert not silent(model, lambda: model(images(64, 64)))


@pytest.mark.parametrize("kind", ["semantic_fpn", "upernet"])
@pytest.mark.parametrize("training", [True, False])
def test_hooks_of_segmenters_fire(kind: str, training: bool) -> None:
    backbone = DenseBackbone("spanetv2_nano_hybrid", {"depths": (1, 1, 1, 1)})
    model = make_segmenter(kind, backbone, 3, {"channels": 8}).train(training)
    unseen = silent(model, lambda: model(images(64, 64)))
    assert all(name.startswith("auxiliary.") and not training for name in unseen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_hooks_of_detectors_fire(kind: str, training: bool) -> None:
    torch.manual_seed(0)
    settings = Settings(8, 16, proposals=40, anchor_scale=4, keypoint_channels=8)
    depths = {"depths": (1, 1, 1, 1)}
    model = make_detector(kind, "spanet_nano", 2, depths, settings=settings).train(training)
    x = list(images(64, 64))
    box = torch.tensor([[8.0, 8, 40, 40]])
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 64)}
    target["keypoints"] = torch.tensor([20.0, 20, 2]).expand(1, settings.keypoints, 3)
    assert not silent(model, lambda: model(x, [target] * 2 if training else None))
    if kind == "retinanet":
        dense = to_dense(model)
        assert not silent(dense, lambda: dense(images(64, 64)))


@pytest.mark.parametrize("name_", structures())
def test_backward_hooks_fire(name_: str) -> None:
    model = shallow(name_).train()
    unseen = {name for name, layer in leaves(model).items() if list(layer.parameters())}
    for name in sorted(unseen):
        layer = model.get_submodule(name)
        layer.register_full_backward_hook(lambda *_, name=name: unseen.discard(name))
    model(images(64, 64)).sum().backward()
    assert not unseen


# ---- what stands in a layer's place


class Louder(nn.Module):
    """Up to doubles a layer's output; reads as the layer does, as adapters do.

    By another factor for each number of an image: a norm behind the layer would undo a single one.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__["_modules"]["layer"]
        return own if name == "layer" else getattr(own, name)

    def forward(self, *given: Any, **named: Any) -> Tensor:
        out = self.layer(*given, **named)
        return out * torch.linspace(1, 2, out[0].numel()).view_as(out[0])


def assert_effective(changed: nn.Module, name: str, x: Tensor, before: Tensor) -> None:
    with torch.no_grad():
        assert error(changed(x), before) > LEAST_EFFECT, name


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


@pytest.mark.parametrize("name_", structures())
def test_what_replaces_a_layer_takes_effect(name_: str) -> None:
    model, x = shallow(name_), images(64, 64)
    with torch.no_grad():
        before = model(x)
    for name, layer in leaves(model).items():
        replace(model, name, Louder(layer))
        assert_effective(model, name, x, before)
        replace(model, name, layer)
    with torch.no_grad():
        assert torch.equal(model(x), before)


@pytest.mark.parametrize(("name_", "arguments"), CHOICES, ids=str)
def test_what_replaces_a_layer_of_an_option_takes_effect(
    name_: str, arguments: dict[str, Any]
) -> None:
    model, x = short(name_, **arguments), images(64, 64)
    with torch.no_grad():
        before = model(x)
    for name, layer in leaves(model).items():
        replace(model, name, Louder(layer))
        with torch.no_grad():
            after = model(x)
        changes = [error(a, b) for a, b in zip(results(after), results(before), strict=True)]
        assert max(changes) > LEAST_EFFECT, name
        replace(model, name, layer)


def with_bias(layer: nn.Module) -> nn.Module:
    """A layer of the same class and with the same weights that also adds numbers."""
    changed = copy.deepcopy(layer)
    bias = torch.linspace(1, 2, len(layer.weight))  # type: ignore[arg-type]
    changed.bias = nn.Parameter(bias)
    return changed


@pytest.mark.parametrize(
    ("name_", "arguments"),
    [*((name, {}) for name in structures()), ("spanet_nano", {"aggregation": "hadamard"})],
    ids=str,
)
def test_a_bias_of_a_replaced_layer_takes_effect(name_: str, arguments: dict[str, Any]) -> None:
    """Of a layer that is built without one; twins must not know layers by their class alone."""
    model, x = shallow(name_, **arguments), images(64, 64)
    with torch.no_grad():
        before = model(x)
    for name, layer in weighted(model).items():
        if layer.bias is None:
            replace(model, name, with_bias(layer))
            assert_effective(model, name, x, before)
            replace(model, name, layer)


class Uneven(nn.Module):
    """A parametrization: doubles a part of the weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.linspace(1, 2, weight.numel()).view_as(weight)


@pytest.mark.parametrize("name_", structures())
def test_parametrizations_and_pruning_take_effect(name_: str) -> None:
    model, x = shallow(name_), images(64, 64)
    with torch.no_grad():
        before = model(x)
    for name, layer in weighted(model).items():
        parametrize.register_parametrization(layer, "weight", Uneven())
        assert_effective(model, name, x, before)
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        weight = layer.weight.detach().clone()
        prune.l1_unstructured(layer, "weight", 0.5)
        assert_effective(model, name, x, before)
        prune.remove(layer, "weight")
        assert_effective(model, name, x, before)
        with torch.no_grad():
            layer.weight.copy_(weight)
    with torch.no_grad():
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("name_", structures())
def test_what_is_parametrized_is_trained(name_: str) -> None:
    model = shallow(name_).train()
    for layer in weighted(model).values():
        parametrize.register_parametrization(layer, "weight", Uneven())
    model(images(64, 64)).square().sum().backward()
    assert not [name for name, value in model.named_parameters() if value.grad is None]


@pytest.mark.parametrize("name_", structures())
def test_symbolic_traces_hold_every_layer(name_: str) -> None:
    """Quantizers and extractors of features look for layers by name."""
    model, x = shallow(name_), images(64, 64)
    _, nodes = get_graph_node_names(model)
    for name in weighted(model):
        assert any(f"{node}.".startswith(f"{name}.") for node in nodes), name
    last = "stages.1.blocks.0.mlp.fc2"
    taken_out: list[Tensor] = []
    model.get_submodule(last).register_forward_hook(lambda *call: taken_out.append(call[2]))
    with torch.no_grad(), plain_layers():
        model(x)
        found = create_feature_extractor(model, [last])(x)[last]
    assert torch.equal(found, taken_out[0])


# ---- weights that are elsewhere, and gradients of single images


@pytest.mark.parametrize("name_", structures())
def test_offloaded_weights_arrive(name_: str) -> None:
    """Weights lie on the meta device but for the calls of the layers that they belong to."""
    accelerate = pytest.importorskip("accelerate")
    model, x = shallow(name_), images(64, 64)
    with torch.no_grad():
        before = model(x)
        away = accelerate.cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
        assert all(value.is_meta for value in away.parameters())
        assert error(away(x), before) < 1e-5  # twins step aside for hooks: other sums


@pytest.mark.parametrize("name_", structures())
def test_gradients_of_single_images_are_seen_by_hooks(name_: str) -> None:
    """What a layer gets, and the gradient of what it gives, is all that its weight's comes from."""
    model = shallow(name_).train()
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    given: dict[str, Tensor] = {}
    for name, layer in weighted(model).items():
        layer.register_forward_hook(lambda _, x, __, name=name: given.update({name: x[0].detach()}))
        layer.register_full_backward_hook(
            lambda _, __, grad, name=name: seen.update({name: (given[name], grad[0])})
        )
    model(images(64, 64)).square().sum().backward()
    for name, layer in weighted(model).items():
        each = [
            gradient_of_weight(layer, x[None], g[None]) for x, g in zip(*seen[name], strict=True)
        ]
        assert layer.weight.grad is not None
        assert error(torch.stack(each).sum(0), layer.weight.grad) < 1e-4, name  # float32 sums


def gradient_of_weight(layer: Any, x: Tensor, grad: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return grad.mT @ x
    slides = layer.stride, layer.padding, layer.dilation, layer.groups
    return torch.nn.grad.conv2d_weight(x, layer.weight.shape, grad, *slides)


# ---- on a GPU, as far as that can be told without one


def watchers() -> Iterator[Any]:
    yield pytest.param(
        lambda mlp, name: replace(mlp, name, Louder(mlp.get_submodule(name))), id="replaced"
    )
    yield pytest.param(
        lambda mlp, name: mlp.get_submodule(name).register_forward_hook(lambda *call: 2 * call[2]),
        id="hooked",
    )


def test_the_mlp_of_a_gpu_adds_a_bias() -> None:
    mlp = fuse(stirred(StarMlp(8)))
    x = torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    mlp.fc2 = with_bias(mlp.fc2)
    with torch.no_grad():
        plain = mlp(x)
        with taken():
            assert error(mlp(x), plain) < 1e-5


@pytest.mark.parametrize("watch", watchers())
@pytest.mark.parametrize("name", ["fc1", "act", "act.relu", "fc2"])
def test_the_mlp_of_a_gpu_steps_aside(name: str, watch: Callable[[nn.Module, str], Any]) -> None:
    mlp = fuse(stirred(StarMlp(8)))
    x = torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        before = mlp(x)
        with taken():
            assert error(mlp(x), before) < 1e-5
        watch(mlp, name)
        after = mlp(x)
        assert error(after, before) > LEAST_EFFECT
        with taken():
            assert error(mlp(x), after) < 1e-5


def test_new_weights_of_a_network_of_maps() -> None:
    """`init_weights` asks for no head where there is none."""
    for name in structures():
        features = timm.create_model(name, features_only=True, output_norm=True, device="meta")
        features.to_empty(device="cpu").model.init_weights()
        assert all(value.isfinite().all() for value in features.parameters())
