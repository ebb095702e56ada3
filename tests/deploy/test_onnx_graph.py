"""Neutral nodes leave an exported graph; everything else stays.

That exported networks have none left: test_export.py.
"""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from spanets.deploy.onnx_graph import drop_neutral_nodes  # noqa: E402


def graph_of(kind: str, held: np.ndarray, swapped: bool, given=(2, 3, 4, "width")):
    """Returns Relu(x), the operation with a constant, Neg."""
    operands = ["c", "r"] if swapped else ["r", "c"]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node(kind, operands, ["m"]),
        helper.make_node("Neg", ["m"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, given)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 5)
    constant = numpy_helper.from_array(held.astype(np.float32), "c")
    graph = helper.make_graph(nodes, "g", [x], [y], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model, width: int = 5) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4, width)).astype(np.float32)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("kind", "held", "is_dropped"),
    [
        ("Mul", np.ones((3, 1, 1)), True),
        ("Add", np.zeros((3, 1, 1)), True),
        ("Mul", np.ones(()), True),
        ("Add", np.zeros((1, 3, 4, 1)), True),
        ("Mul", np.zeros((3, 1, 1)), False),
        ("Add", np.ones((3, 1, 1)), False),
        ("Mul", np.array([1, 1, 2]).reshape(3, 1, 1), False),
        ("Mul", np.ones((1, 1, 1, 1, 1)), False),  # adds a dimension
        ("Add", np.zeros((5,)), False),  # the width is free: it may be 1
    ],
)
def test_only_what_changes_nothing_is_dropped(kind, held, swapped, is_dropped):
    model = graph_of(kind, held, swapped)
    before = run(model)
    drop_neutral_nodes(model)
    assert [node.op_type for node in model.graph.node] == (
        ["Relu", "Neg"] if is_dropped else ["Relu", kind, "Neg"]
    )
    assert len(model.graph.initializer) == (not is_dropped)
    assert np.array_equal(run(model), before)
