"""Replaces what a program of fixed sizes computes without its images by constants."""

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.node import map_arg


def fold_constants(program: ExportedProgram, images: Tensor) -> ExportedProgram:
    """Returns a program in which masks, bases and filters of the size are constants.

    Runtimes of phones have few operators for shapes and masks, and none is left.

    Args:
        program: Program with fixed sizes, of one input.
        images: Its input (B, C, H, W).
    """
    module: Any = program.run_decompositions({}).module(check_guards=False)
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
    _forget_layouts(module.graph)
    # torch keeps assertions, and with them what they look at.
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, (images,), strict=False)


def _forget_layouts(graph: Graph) -> None:
    """Lets every map have the default memory layout, as runtimes other than torch expect."""
    for node in graph.nodes:
        is_copy = node.target is torch.ops.aten.clone.default
        if is_copy and node.kwargs.get("memory_format") is torch.channels_last:
            node.replace_all_uses_with(node.args[0])  # a copy in another layout, of equal values
        elif str(node.target) in ("aten.view.default", "aten._unsafe_view.default"):
            node.target = torch.ops.aten.reshape.default  # a view rests on the layout


def _read(module: torch.nn.Module, name: str) -> Any:
    holder, _, last = name.rpartition(".")
    return getattr(module.get_submodule(holder), last)
