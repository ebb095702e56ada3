"""Finds what the first stages of a timm feature extractor consist of, to freeze them alone."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spanets.backbones.modes import evaluating


def first_parameters(net: nn.Module, stride: int, size: tuple[int, int, int]) -> set[str] | None:
    """Returns the names of the parameters on which the maps up to a stride depend.

    Autograd's graph tells them. Neither names nor the order of registration do: in some of timm's
    models `feature_info` names no module, or later stages are registered before the first ones.

    Args:
        net: Network made with `features_only=True`.
        stride: Largest stride of the first stages.
        size: Channels, height and width of an image.

    Returns:
        The names, without those of output norms, which belong to the maps and not to the stages;
        or None if a part of a later stage is among them, as in HRNet.
    """
    info: Any = net.feature_info
    values = _values_on_meta(net)
    maps = _maps_of(net, values, size)
    is_first = [reduction <= stride for reduction in info.reduction()]
    first = _reached((x for x, early in zip(maps, is_first, strict=True) if early), values)
    used = _reached(maps, values)
    names: set[str] = set()
    belongs = False
    for name, _ in net.named_parameters():
        if name in used:  # one without a use goes with the one before it
            belongs = name in first
        if belongs and "output_norms." not in name:
            names.add(name)
    modules = dict(net.named_modules())
    for row in (row for row in info.info if row["reduction"] > stride):
        later = next((n for n in _names_in_net(row["module"]) if n in modules), None)
        if later and any(name.startswith(f"{later}.") for name in names):
            return None
    return names


def modules_of(net: nn.Module, parameters: set[str]) -> Iterator[str]:
    """Yields the names of the modules that have these parameters only, or none and follow such."""
    follows = False
    for name, module in net.named_modules():
        prefix = f"{name}." if name else ""
        held = {f"{prefix}{key}" for key, _ in module.named_parameters()}
        if held <= parameters if held else follows:
            yield name
        if own := {f"{prefix}{key}" for key, _ in module.named_parameters(recurse=False)}:
            follows = own <= parameters


def is_within(name: str, modules: frozenset[str]) -> bool:
    """Whether a module of this name is one of these or lies in one of them."""
    parts = name.split(".")
    return any(".".join(parts[:i]) in modules for i in range(1, len(parts) + 1))


def _values_on_meta(net: nn.Module) -> dict[str, Tensor]:
    """Returns stand-ins on the meta device, where nothing is computed; parameters require grad."""
    parameters = [
        (name, torch.empty_like(value, device="meta", requires_grad=True))
        for name, value in net.named_parameters()
    ]
    buffers = [
        (name, torch.empty_like(value, device="meta")) for name, value in net.named_buffers()
    ]
    return dict([*parameters, *buffers])


def _maps_of(net: nn.Module, values: dict[str, Tensor], size: tuple[int, int, int]) -> list[Tensor]:
    images = torch.empty(1, *size, dtype=next(net.parameters()).dtype, device="meta")
    with evaluating(net), torch.enable_grad():
        return list(functional_call(net, values, images))


def _reached(maps: Iterable[Tensor], values: dict[str, Tensor]) -> set[str]:
    """Returns the names of the values that autograd reaches from these maps."""
    todo: list[Any] = [x.grad_fn for x in maps]
    seen = set(todo)
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                todo.append(node)
    ends = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return {name for name, value in values.items() if id(value) in ends}


def _names_in_net(module: str) -> list[str]:
    """Returns the names that a module of the model may have in timm's feature extractors."""
    return [f"model.{module}", f"body.{module}", module.replace(".", "_", 1), module]
