"""State dicts stay the same, in keys and values, whatever holds or moves a network."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import timm
import torch
from networks import images, shallow, structures
from torch import Tensor, nn


def by_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def by_saving(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def by_meta(model: nn.Module) -> nn.Module:
    """Emptied, then given its tensors."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    empty = copy.deepcopy(model).to("meta")
    empty.load_state_dict(state, assign=True)
    return empty


def by_wrapping(model: nn.Module) -> nn.Module:
    wrapped = nn.DataParallel(model)
    assert [key.removeprefix("module.") for key in wrapped.state_dict()] == list(model.state_dict())
    return wrapped.module


@pytest.mark.parametrize(
    "move", [copy.deepcopy, by_pickle, by_saving, by_meta, by_wrapping], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("name_", structures())
def test_a_moved_network_is_the_same(name_: str, move: Callable[[nn.Module], nn.Module]) -> None:
    model, x = shallow(name_), images(64, 64)
    with torch.no_grad():
        before = model(x)  # fills what caches there are
        moved = move(model)
        assert torch.equal(moved(x), before)
    assert list(moved.state_dict()) == list(model.state_dict())
    assert all(torch.equal(moved.state_dict()[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name_", structures())
def test_running_leaves_no_trace_in_the_state(name_: str) -> None:
    model = shallow(name_)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(images(64, 64))
    model.train()(images(96, 80)).sum().backward()
    after: dict[str, Tensor] = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize("name_", structures())
def test_a_map_of_devices_reaches_every_tensor(name_: str, features_only: bool) -> None:
    """By the names of leaf modules, and of parameters that a composite module holds itself."""
    model = timm.create_model(name_, device="meta", features_only=features_only)
    leaves = [name for name, m in model.named_modules() if not list(m.children())]
    own = [
        f"{name}.{key}"
        for name, m in model.named_modules()
        if list(m.children())
        for key, _ in m.named_parameters(recurse=False)
    ]
    assert all(
        key.startswith(tuple(f"{n}." for n in leaves)) or key in own for key in model.state_dict()
    )
