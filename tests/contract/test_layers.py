"""Layers are torch's and timm's own, so that whoever knows those counts and rebuilds ours.

That each is called, and that whatever stands in its place has its effect: test_layers_called.py.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import error, images, plain_layers, shallow, structures
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from spanets.spectral.tracing import is_recorded


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert found
    return found


@pytest.mark.parametrize("name_", structures())
def test_weighted_layers_have_exactly_torchs_classes(name_: str) -> None:
    kinds = {type(layer) for layer in convolutions(shallow(name_, device="meta")).values()}
    assert kinds == {nn.Conv2d, nn.Linear}


# ---- rebuilding


def rebuilt(layer: Any) -> nn.Module:
    """A layer made as adapters make theirs: by the class, with the attributes as arguments."""
    if isinstance(layer, nn.Linear):
        return type(layer)(layer.in_features, layer.out_features, bias=layer.bias is not None)
    return type(layer)(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
    )


class Wrapper(nn.Module):
    """A module of the layer's signature and no other attribute."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.wrapped = layer

    def forward(self, *given: Any, **named: Any) -> Tensor:
        return self.wrapped(*given, **named)


def subclassed(layer: nn.Module) -> nn.Module:
    layer.__class__ = type("Own", (type(layer),), {})
    return layer


def copied(layer: nn.Module) -> nn.Module:
    twin = rebuilt(layer)
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("stand_in", [copied, Wrapper, subclassed])
@pytest.mark.parametrize("output_stride", [8, 32])
@pytest.mark.parametrize("name_", structures())
def test_stand_ins_give_the_same_result(
    name_: str, output_stride: int, stand_in: Callable[[nn.Module], nn.Module]
) -> None:
    model, x = shallow(name_, output_stride=output_stride), images(64, 64)
    with torch.no_grad():
        before = model(x)
        for name, layer in convolutions(model).items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, stand_in(layer))
        assert error(model(x), before) < 1e-5  # twins step aside: other sums


@pytest.mark.parametrize("name_", structures())
def test_wrappers_of_all_leaves_give_the_same_result(name_: str) -> None:
    """Also of norms, activations, scales and filters."""
    model, x = shallow(name_), images(64, 64)
    with torch.no_grad():
        before = model(x)
        leaves = [name for name, m in model.named_modules() if not list(m.children())]
        for name in leaves:
            parent, _, child = name.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, child, Wrapper(getattr(owner, child)))
        assert error(model(x), before) < 1e-5


# ---- counting


def counted_by_class(model: nn.Module, x: Tensor) -> int:
    """Operations as counters of layers find them: by the exact class, at its calls."""
    total = 0

    def count(layer: Any, _: Any, out: Tensor) -> None:
        nonlocal total
        each = layer.weight[0].numel()
        total += 2 * out.numel() * each

    hooks = [
        layer.register_forward_hook(count)
        for layer in model.modules()
        if type(layer) in (nn.Conv2d, nn.Linear)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("name_", structures())
def test_counters_of_layers_find_all_but_a_twentieth(name_: str) -> None:
    """The rest are products without a layer: of the filters and of attention."""
    model, x = shallow(name_), images(128, 128)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    exact = counter.get_flop_counts()["Global"]
    products = [v for op, v in exact.items() if "bmm" in str(op) or "attention" in str(op)]
    everything = counter.get_total_flops()
    by_class = counted_by_class(model, x)
    assert by_class <= 1.05 * everything
    assert by_class >= 0.95 * (everything - sum(products))


def test_the_plain_layers_are_counted_alike() -> None:
    """A twin must not hide work from a counter, nor invent it."""
    model, x = shallow("spanet_nano"), images(64, 64)
    totals = []
    for _ in range(2):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        totals.append(counter.get_total_flops())
        with plain_layers(), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        totals.append(counter.get_total_flops())
    assert max(totals) < 1.05 * min(totals)


# ---- watching


class Recorder(TorchFunctionMode):
    """Keeps the weights and biases of all convolutions and linear layers that run."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, torch.conv2d, F.linear):
            known = dict(zip(("input", "weight", "bias"), args, strict=False)) | (kwargs or {})
            self.given += [t for t in (known["weight"], known.get("bias")) if t is not None]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name_", structures())
@pytest.mark.parametrize("default_device", [False, True])
def test_a_recorder_of_calls_sees_parameters(name_: str, default_device: bool) -> None:
    """Quantizers look for layers whose weight and bias are parameters, not results."""
    model = shallow(name_)
    own = {id(parameter) for parameter in model.parameters()}
    x = images(64, 64)
    with torch.no_grad():
        expected = model(x)
        with Recorder() as recorder, torch.device("cpu") if default_device else nullcontext():
            found = model(x)
    assert recorder.given
    assert all(id(tensor) in own for tensor in recorder.given)
    assert error(found, expected) < 1e-5


@pytest.mark.parametrize("name_", structures())
def test_a_recorder_sees_the_same_calls_in_every_run(name_: str) -> None:
    """Constants of a size are computed in the first run alone, so a recorder must not see that."""
    model, calls = shallow(name_), []

    class Names(TorchFunctionMode):
        def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls[-1].append(getattr(f, "__name__", str(f)))
            return f(*args, **(kwargs or {}))

    for _ in range(2):
        calls.append([])
        with torch.no_grad(), Names():
            model(images(64, 96))
    assert calls[0] == calls[1]


def test_a_default_device_watches_nothing() -> None:
    with torch.device("cpu"):
        assert not is_recorded()
        with Recorder():
            assert is_recorded()
