"""What recorded graphs hold, and what they must not: few runtimes take every operator."""

import io
from collections import Counter
from functools import cache
from typing import Any

import pytest
import timm
import torch
from networks import OPTIONS_V2, error, images, short, stirred
from torch import Tensor, fx, nn
from torch.export import Dim

# Arithmetic of sizes, and of what follows from them alone.
SHAPE_ARITHMETIC = {
    *("arange", "cat", "clamp", "cos", "div_", "eq", "full", "ge", "gt", "le", "lt", "minimum"),
    *("neg", "ones", "remainder", "sin", "sqrt", "sym_size", "where", "zeros"),
    *("add", "floordiv", "mod", "mul_", "sub_"),  # Python's, on symbolic integers
}
FLOAT_ARITHMETIC = {"add.Tensor"}  # of maps

# Operators that Core ML, ExecuTorch, OpenVINO or ONNX's older exporter lack.
REJECTED = {"__and__", "and_", "bitwise_and", "bitwise_or", "logical_and", "logical_or", "mT"}


# Short networks, since exports are dear: of SPAM, of SPANetV2's mixer, and with both attentions.
NETWORKS = {
    "spam": ("spanet_nano", {}),
    "adaptive": ("spanetv2_nano_pure", {}),
    "attention": ("spanetv2_nano_pure", OPTIONS_V2[5]),
}


KINDS = ["spam", "adaptive", pytest.param("attention", marks=pytest.mark.slow)]


def network(kind: str) -> nn.Module:
    name, arguments = NETWORKS[kind]
    return short(name, **arguments)


def any_size() -> tuple[dict[int, Any]]:
    return ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)


@cache
def graph(kind: str, free: bool) -> fx.GraphModule:
    size = (96, 80) if free else (64, 64)
    shapes = any_size() if free else None
    x = (images(*size),)
    program = torch.export.export(network(kind), x, dynamic_shapes=shapes, strict=False)
    return program.run_decompositions({}).module()


def operators(module: fx.GraphModule) -> Counter[str]:
    called = [node for node in module.graph.nodes if node.op == "call_function"]
    return Counter(str(getattr(node.target, "__name__", node.target)) for node in called)


def base(operator: str) -> str:
    return operator.split(".")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_one_size_hold_no_arithmetic_of_sizes(kind: str) -> None:
    found = {op for op in operators(graph(kind, False)) if base(op) in SHAPE_ARITHMETIC}
    assert found <= FLOAT_ARITHMETIC


@pytest.mark.parametrize(("kind", "most"), [("spam", 2), ("adaptive", 3)])
def test_graphs_of_one_size_are_small(kind: str, most: int) -> None:
    """In two stages, so many times the operators that another network has in four."""
    control = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), num_classes=7).eval()
    program = torch.export.export(control, (images(64, 64),), strict=False).run_decompositions({})
    limit = most * sum(operators(program.module()).values())
    assert sum(operators(graph(kind, False)).values()) < limit


@pytest.mark.parametrize("free", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_graph_holds_rejected_operators(kind: str, free: bool) -> None:
    assert not {op for op in operators(graph(kind, free)) if base(op) in REJECTED}


@pytest.mark.parametrize("kind", KINDS)
def test_no_graph_imposes_a_memory_layout(kind: str) -> None:
    """ExecuTorch's norms, for one, reject channels last; callers may give it all the same."""
    program = graph(kind, False)
    assert not [node for node in program.graph.nodes if torch.channels_last in node.kwargs.values()]
    x = images(64, 64)
    with torch.no_grad():
        found = program(x.contiguous(memory_format=torch.channels_last))
        assert error(found, network(kind)(x)) < 1e-5  # float32 sums in another order


def leaves(node: fx.Node) -> set[fx.Node]:
    """The images, weights and constants that a value is computed from."""
    given = node.all_input_nodes
    return {node} if not given else set().union(*(leaves(other) for other in given))


LEFT_FACTOR = {"mm": 0, "bmm": 0, "matmul": 0, "addmm": 1, "baddbmm": 1}


@pytest.mark.parametrize("free", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_right_factors_of_maps(kind: str, free: bool) -> None:
    """OpenVINO, for one, takes the scales of an int8 weight's channels only there."""
    program = graph(kind, free)
    weights = dict(program.named_parameters())
    from_maps, left_weights = 0, []
    for node in program.graph.nodes:
        place = LEFT_FACTOR.get(base(getattr(node.target, "__name__", "")))
        if node.op != "call_function" or place is None:
            continue
        left, right = (leaves(factor) for factor in node.args[place : place + 2])
        if any(leaf.op == "placeholder" for leaf in left | right):
            from_maps += 1
            left_weights += [
                leaf.target for leaf in left if len(left) == 1 and leaf.target in weights
            ]
    assert from_maps and not left_weights


@pytest.mark.parametrize("kind", KINDS)
def test_layers_take_their_parameters(kind: str) -> None:
    """Graph quantizers look for weights and biases that are parameters, not results."""
    program = torch.export.export(network(kind), (images(64, 64),), strict=False).module()
    weights = dict(program.named_parameters())
    layers = [
        node
        for node in program.graph.nodes
        if str(node.target) in ("aten.conv2d.default", "aten.linear.default")
    ]
    assert layers
    for node in layers:
        used = [given for given in node.args[1:3] if isinstance(given, fx.Node)]
        assert used and all(given.target in weights for given in used), node.name


class NoNegativeRemainder(fx.Interpreter):
    """Fails at the remainder of a negative number, whose sign runtimes do not agree on."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if "remainder" in str(target):
            assert (torch.as_tensor(args[0]) >= 0).all()
        return super().call_function(target, args, kwargs)


@pytest.mark.parametrize(
    "kind", ["spam", *(pytest.param(k, marks=pytest.mark.slow) for k in ("adaptive", "attention"))]
)
def test_no_graph_takes_the_remainder_of_a_negative_number(kind: str) -> None:
    model = graph(kind, True)
    x = images(64, 112)
    out = NoNegativeRemainder(model).run(x)
    with torch.no_grad():
        assert error(out, network(kind)(x)) < 1e-5  # float32 sums in another order


def test_a_constant_is_stored_once() -> None:
    """Two blocks of a stage need the same ones."""
    counts = []
    for depth in (1, 2):
        model = short("spanet_nano", depths=(depth, 1))
        program = torch.export.export(model, (images(64, 64),), strict=False)
        counts.append(len({id(value) for value in program.constants.values()}))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_survive_an_export(dtype: torch.dtype) -> None:
    """A tracer's fake tensor in a cache would break all later calls of that size."""
    model = short("spanetv2_nano_pure").to(dtype)
    x = images(72, 104).to(dtype)
    program = torch.export.export(model, (x,), strict=False)
    with torch.no_grad():
        first = model(x)
        assert error(program.module()(x), first) < 1e-5
    model.train()(x).sum().backward()
    assert all(value.grad is not None for value in model.parameters())


# ---- torch.jit.trace and torch.jit.script


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_traces_hold_what_runtimes_know(kind: str) -> None:
    """Core ML, for one, knows none of these operators and no empty tensor."""
    trace = torch.jit.trace(network(kind), images(96, 80), check_trace=False)
    nodes = list(trace.inlined_graph.nodes())
    assert not {node.kind() for node in nodes} & {"aten::Int", "aten::new_ones"}
    assert not [node for node in nodes if "bicubic" in node.kind()]
    kinds = [output.type() for node in nodes for output in node.outputs()]
    sizes = [kind.sizes() for kind in kinds if isinstance(kind, torch._C.TensorType)]
    assert not [size for size in sizes if size and 0 in size]
    for size in ((96, 80), (64, 64), (33, 150)):
        with torch.no_grad():
            assert error(trace(images(*size)), network(kind)(images(*size))) < 1e-5


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_scripts_compute_what_the_network_does(kind: str) -> None:
    name, arguments = NETWORKS[kind]
    for more in ({"scriptable": True}, {"features_only": True}):
        model = short(name, **arguments, **more)
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(model), buffer)
        buffer.seek(0)
        script = torch.jit.load(buffer)
        for size in ((64, 64), (96, 80)):
            with torch.no_grad():
                assert error(script(images(*size)), model(images(*size))) < 1e-5


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_script_in_training_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^torch.jit.script records .* call eval\(\) first$"):
        torch.jit.script(timm.create_model("spanet_nano"))


# ---- memory layout


def layouts(model: nn.Module, watched: nn.Module) -> list[bool]:
    """Whether a layer's maps are channels last."""
    seen: list[bool] = []

    def look(_: nn.Module, x: tuple[Tensor, ...]) -> None:
        seen.append(x[0].is_contiguous(memory_format=torch.channels_last))

    hook = watched.register_forward_pre_hook(look)
    with torch.no_grad():
        model(images(64, 64))
    hook.remove()
    return seen


def test_hooks_see_the_layout_of_the_caller() -> None:
    """Per-sample gradients of other libraries are wrong for channels-last maps."""
    model = stirred(timm.create_model("spanet_nano", depths=(1, 1, 1, 1)))
    inner = model.stages[1].blocks[0].mlp.fc2
    assert layouts(model, inner) == [True]
    hook = model.stem.conv.register_forward_hook(lambda *_: None)
    assert layouts(model, inner) == [False]
    hook.remove()
    assert layouts(model, inner) == [True]
