"""Optimizer states of runs that an earlier version began: states follow the names of parameters."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from spanets.weights import WeightsError
from spanets.weights.earlier import earlier_name, is_earlier_name, rename_contexts


def follow_names(optimizer: Optimizer, module: nn.Module, saved: Iterable[str]) -> None:
    """Has an optimizer take the states of parameters that had other names when they were saved.

    torch numbers parameters by their order in the groups, and version 0.1 kept the gates of a
    context as one parameter.

    Args:
        optimizer: Of the module's parameters.
        module: Today's.
        saved: Names of the saved parameters, in their order.
    """
    saved = list(saved)
    if not any(map(is_earlier_name, saved)):
        return
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]

    def adopt(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return _renumber(state, groups, {name: i for i, name in enumerate(saved)})

    optimizer.register_load_state_dict_pre_hook(adopt)


def _renumber(
    state: dict[str, Any], groups: list[list[str]], position: Mapping[str, int]
) -> dict[str, Any]:
    by_name: dict[str, dict[str, Any]] = {}
    for names, group in zip(groups, state["param_groups"], strict=True):
        before = sorted({earlier_name(name) for name in names}, key=position.__getitem__)
        for name, number in zip(before, group["params"], strict=True):
            by_name[name] = state["state"].get(number, {})
    renamed = _rename(by_name)
    numbers = iter(range(sum(map(len, groups))))
    numbered = [[next(numbers) for _ in names] for names in groups]
    states = {
        number: renamed[name]
        for names, row in zip(groups, numbered, strict=True)
        for name, number in zip(names, row, strict=True)
        if renamed.get(name)
    }
    pairs = zip(state["param_groups"], numbered, strict=True)
    return {"state": states, "param_groups": [{**group, "params": row} for group, row in pairs]}


def _rename(by_name: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Renames each kind of state as the parameters are renamed; a count of steps is all parts'."""
    renamed: dict[str, dict[str, Any]] = {}
    for kind in {kind for state in by_name.values() for kind in state}:
        values = {name: state[kind] for name, state in by_name.items() if kind in state}
        tensors = {k: v for k, v in values.items() if isinstance(v, Tensor) and v.ndim}
        for name, value in rename_contexts(tensors).items():
            renamed.setdefault(name, {})[kind] = value
        for name, value in values.items():
            if name not in tensors:
                for part in [n for n in renamed if earlier_name(n) == name] or [name]:
                    renamed.setdefault(part, {})[kind] = value
    if left := [name for name in renamed if is_earlier_name(name)]:
        raise WeightsError(
            f"the optimizer's state of {left[0]}, which version 0.1 wrote, cannot be split into "
            "today's parameters; start a new run from the checkpoint with model.weights"
        )
    return renamed
