"""Cleans up an exported ONNX graph: names of sizes, traces of the source code, neutral nodes."""

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


def drop_neutral_nodes(model: Any) -> None:
    """Removes products with ones and sums with zeros.

    The exporter writes both for a norm without scale and offset; each would pass over a whole map.
    A constant that adds or may stretch a dimension stays. Graphs with branches stay as they are.
    """
    from onnx import AttributeProto, numpy_helper, shape_inference

    graph = model.graph
    if any(a.type == AttributeProto.GRAPH for node in graph.node for a in node.attribute):
        return
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    constants = {one.name: one for one in graph.initializer}
    outputs = {value.name for value in graph.output}
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        if node.op_type not in ("Mul", "Add") or node.output[0] in outputs:
            continue
        for given, name in (node.input, reversed(node.input)):
            shape = shapes.get(given)
            if name not in constants or shape is None:
                continue
            held = numpy_helper.to_array(constants[name])
            pairs = list(zip(held.shape[::-1], shape[::-1], strict=False))
            fits = held.ndim <= len(shape) and all(a in (1, b) for a, b in pairs)
            if fits and (held == (node.op_type == "Mul")).all():
                renamed[node.output[0]] = given
                graph.node.remove(node)
                break
    used = {name for node in graph.node for name in node.input} | outputs
    for one in list(graph.initializer):
        if one.name not in used:
            graph.initializer.remove(one)
    for value in list(graph.value_info):
        if value.name in renamed:
            graph.value_info.remove(value)
