"""Converts optimizer states of checkpoints from versions with other parameter names."""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from spanets.weights.earlier import earlier_name, is_earlier_name, rename_all


def follow_names(optimizer: Optimizer, module: nn.Module, saved: Iterable[str]) -> None:
    """Makes an optimizer match saved states to today's parameters by name.

    torch matches states by position in the groups, and renaming parameters changes that position.

    Args:
        optimizer: Optimizer of the module's parameters.
        module: The module, with today's names.
        saved: Names of the saved parameters, in saved order.
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
    """Reorders saved states to today's groups, in today's shapes."""
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
    """Reshapes a saved state of a parameter to the parameter's shape of today."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value  # the step count
    (renamed,) = rename_all({earlier: value}).values()
    return renamed
