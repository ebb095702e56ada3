"""What an exporter leaves in an ONNX graph, made fit to be given away."""

import re
from typing import Any


def name_sizes(graph: Any) -> None:
    """Names the free sizes, in which the outputs' are told, too: the exporter's are numbers."""
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
    """Takes out what the exporter notes of the code: paths on this machine."""
    graphs = (model.graph, *model.functions)
    nodes = [node for graph in graphs for node in graph.node]
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    for part in (*graphs, *nodes, *values, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
