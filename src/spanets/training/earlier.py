"""Optimizer states of runs that an earlier version began: states follow the names of parameters."""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from spanets.weights.earlier import earlier_name, is_earlier_name, rename_contexts


def follow_names(optimizer: Optimizer, module: nn.Module, saved: Iterable[str]) -> None:
    """Has an optimizer take the states of parameters that had other names when they were saved.

    torch numbers parameters by their order in the groups, which names decide.

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
    """Puts the states of parameters in the order of today's groups, in today's shapes."""
    number = count()
    renumbered: dict[int, dict[str, Any]] = {}
    rows = []
    for names, group in zip(groups, state["param_groups"], strict=True):
        before = sorted(map(earlier_name, names), key=position.__getitem__)
        saved = dict(zip(before, group["params"], strict=True))
        row = [next(number) for _ in names]
        for name, new in zip(names, row, strict=True):
            earlier = earlier_name(name)
            if (values := state["state"].get(saved[earlier])) is not None:
                renumbered[new] = {kind: _reshape(earlier, value) for kind, value in values.items()}
        rows.append({**group, "params": row})
    return {"state": renumbered, "param_groups": rows}


def _reshape(earlier: str, value: Any) -> Any:
    """Gives what an optimizer keeps for a parameter the parameter's shape of today."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value  # a count of steps
    (renamed,) = rename_contexts({earlier: value}).values()
    return renamed
