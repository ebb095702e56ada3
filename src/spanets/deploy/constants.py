"""Replaces what a program of fixed sizes computes without its images by constants."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.node import map_arg


@torch.no_grad()
def fold_constants(
    program: ExportedProgram,
    images: Tensor,
    decompositions: Mapping[Any, Callable[..., Any]] | None = None,
) -> ExportedProgram:
    """Returns a program in which masks, bases and filters of the size are constants.

    Runtimes of phones have few operators for shapes and masks, and none is left.

    Args:
        program: Program with fixed sizes, of one input.
        images: Its input (B, C, H, W).
        decompositions: How to write operators by other ones.
    """
    table = dict(decompositions or {})
    module: Any = program.run_decompositions(table).module(check_guards=False)
    values: dict[Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = _read(module, node.target)
        elif node.op == "call_function" and all(n in values for n in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for number, (node, value) in enumerate(values.items()):
        is_used = any(user not in values for user in node.users)
        if node.op == "call_function" and isinstance(value, Tensor) and is_used:
            name = f"constant_{number}"
            module.register_buffer(name, value.detach().clone())
            with module.graph.inserting_before(node):
                constant = module.graph.get_attr(name)
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in values)
    _drop_permutations(module.graph)
    # torch keeps assertions, and with them what they look at.
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    module.recompile()
    return torch.export.export(module, (images,), strict=False)


def _drop_permutations(graph: Graph) -> None:
    """Removes permutations of axes that undo each other."""
    permute = torch.ops.aten.permute.default
    for node in graph.nodes:
        before: Any = node.args[0] if node.target is permute else None
        if before is None or before.target is not permute:
            continue
        axes: Any = before.args[1]
        order = [axes[axis] % len(axes) for axis in node.args[1]]
        if order == sorted(order):
            node.replace_all_uses_with(before.args[0])


def _read(module: torch.nn.Module, name: str) -> Any:
    holder, _, last = name.rpartition(".")
    return getattr(module.get_submodule(holder), last)
