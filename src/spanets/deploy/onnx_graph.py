"""Cleans up an exported ONNX graph: names of free sizes, and traces of the source code."""

import re
from typing import Any


def name_sizes(graph: Any) -> None:
    """Gives free sizes readable names, also in the outputs' shapes; the exporter numbers them."""
    given = [size.dim_param for size in graph.input[0].type.tensor_type.shape.dim]
    names = dict(zip(given, ("batch", "channels", "height", "width"), strict=True))
    free = [name for name in given if name.isidentifier()]
    if not free:
        return
    pattern = re.compile(rf"\b({'|'.join(free)})\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = pattern.sub(lambda found: names[found[0]], size.dim_param)


def forget_origin(model: Any) -> None:
    """Removes the exporter's notes on the source code, which contain local paths."""
    graphs = (model.graph, *model.functions)
    nodes = [node for graph in graphs for node in graph.node]
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    for part in (*graphs, *nodes, *values, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
