"""Whatever records a network records all of it: each recorder there is, against the network.

A recorder that knows nothing of aliases loses what is added in place to a view, and tells nobody:
the logits of such a record were off by a tenth to a half of the largest.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import CHOICES, ROWS, TOGETHER, error, images, shallow, short, structures
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import spanets
from spanets.backbones.dense import DenseBackbone
from spanets.kernels import fused
from spanets.segmentation import make_segmenter

# Of the largest logit. A recorder may decompose an operator, which rounds once more in some of the
# hundred or so that lie one after the other: some 1e-16, 1e-7 and 4e-3 each.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 5e-2}

# Quantizers with 2^24 steps add as much as float32 rounds, at every operator.
TOLERANCE_OF_STEPS = 3e-5

SIZES = [(64, 64), (96, 80)]

Network = Callable[[Tensor], Any]
Recorder = Callable[[nn.Module, Tensor, Path], Network]


def any_size() -> tuple[dict[int, Any]]:
    return ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)


def by_jit_trace(model: nn.Module, x: Tensor, _: Path) -> Network:
    return torch.jit.trace(model, x, check_trace=False)


def by_symbolic_trace(model: nn.Module, _: Tensor, __: Path) -> Network:
    return fx.symbolic_trace(model)


def by_make_fx(model: nn.Module, x: Tensor, _: Path, mode: str = "real") -> Network:
    return make_fx(model, tracing_mode=mode, _allow_non_fake_inputs=True)(x)


def by_export(model: nn.Module, x: Tensor, _: Path, strict: bool = False) -> Network:
    return torch.export.export(model, (x,), strict=strict).module()


def by_export_of_any_size(
    model: nn.Module, x: Tensor, _: Path, strict: bool = False, decompose: bool = False
) -> Network:
    program = torch.export.export(model, (x,), dynamic_shapes=any_size(), strict=strict)
    return (program.run_decompositions() if decompose else program).module()


def by_compile(model: nn.Module, _: Tensor, __: Path, **options: Any) -> Network:
    torch._dynamo.reset()
    if options.get("backend") == "aot_eager" and not group_norm_is_traced_rightly():
        pytest.skip("this torch traces GroupNorm with another memory layout than it computes")
    return torch.compile(model, fullgraph=True, **options)


def group_norm_is_traced_rightly() -> bool:
    """Whether traced maps get the strides of real ones; in torch 2.14 they do not.

    `aot_eager` runs the traced views as they are. Inductor, the default, chooses layouts itself.
    """
    real = torch.zeros(1, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    with FakeTensorMode() as fake:
        traced = F.group_norm(fake.from_tensor(real), 1)
    return traced.is_contiguous() == F.group_norm(real, 1).is_contiguous()


def by_older_onnx(model: nn.Module, x: Tensor, folder: Path) -> Network:
    pytest.importorskip("onnx")
    path = folder / "older.onnx"
    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(
        model,
        (x,),
        path,
        dynamo=False,
        input_names=["images"],
        dynamic_axes=axes,
        opset_version=18,
    )
    return run_by_onnxruntime(path)


def by_onnx(model: nn.Module, x: Tensor, folder: Path, free: bool = False) -> Network:
    pytest.importorskip("onnxscript")
    path = folder / "newer.onnx"
    shapes = any_size() if free else None
    torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    return run_by_onnxruntime(path)


def run_by_onnxruntime(path: Path) -> Network:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(y) for y in session.run(None, {name: x.numpy()})]

    return run


def by_quantizer(model: nn.Module, x: Tensor, _: Path) -> Network:
    """PT2E: prepared and converted, each number of each operator rounded to one of 2^24 steps."""
    try:
        from torchao.quantization.pt2e import MinMaxObserver
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import (
            QuantizationAnnotation,
            QuantizationSpec,
            Quantizer,
        )
    except ImportError:
        pytest.skip("torchao is not installed")
    steps = QuantizationSpec(
        dtype=torch.int32,
        observer_or_fake_quant_ctr=MinMaxObserver,
        quant_min=-(2**23),
        quant_max=2**23,
        qscheme=torch.per_tensor_symmetric,
    )

    class Everything(Quantizer):
        def annotate(self, graph: fx.GraphModule) -> fx.GraphModule:
            for node in graph.graph.nodes:
                if node.op == "call_function" and is_map(node):
                    inputs = [a for a in node.args if isinstance(a, fx.Node) and is_map(a)]
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        dict.fromkeys(inputs, steps), steps, _annotated=True
                    )
            return graph

        def validate(self, graph: fx.GraphModule) -> None:
            pass

    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), Everything())
    prepared(x)
    return convert_pt2e(prepared)


def is_map(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


# Recorders, and at how many of the sizes their records are good. Those after the first six take
# many seconds each: in the default run they record a short network.
QUICK: dict[str, tuple[Recorder, int]] = {
    "jit.trace": (by_jit_trace, 2),
    "onnx, older": (by_older_onnx, 2),
    "symbolic_trace": (by_symbolic_trace, 2),
    "make_fx": (by_make_fx, 1),
    "export": (by_export, 1),
    "quantizer": (by_quantizer, 1),
}
DEAR: dict[str, tuple[Recorder, int]] = {
    "onnx": (by_onnx, 1),
    "export, strict": (partial(by_export, strict=True), 1),
    "compile": (partial(by_compile, backend="aot_eager"), 1),
}
DEAREST: dict[str, tuple[Recorder, int]] = {
    "onnx, any size": (partial(by_onnx, free=True), 2),
    "make_fx, symbolic": (partial(by_make_fx, mode="symbolic"), 2),
    "export, any size": (by_export_of_any_size, 2),
    "export, any size, strict": (partial(by_export_of_any_size, strict=True), 2),
    "export, any size, decomposed": (partial(by_export_of_any_size, decompose=True), 2),
    "compile, any size": (partial(by_compile, backend="aot_eager", dynamic=True), 2),
}
RECORDERS = {**QUICK, **DEAR, **DEAREST}

quiet = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::UserWarning", "ignore::FutureWarning"
)


def cases() -> Iterator[Any]:
    """Networks and recorders: quick ones for each structure, all for all others when slow."""
    for name in ROWS:
        known = name in structures()
        for recorder in RECORDERS if known else QUICK:
            first = name == structures()[0] or recorder != "quantizer"
            slow = not known or recorder not in QUICK or not first
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(name, recorder, marks=marks, id=f"{name}-{recorder}")


def check(model: nn.Module, recorder: str, folder: Path, limit: float | None = None) -> None:
    record, count = RECORDERS[recorder]
    dtype = next(model.parameters()).dtype
    if limit is None:
        limit = TOLERANCE_OF_STEPS if recorder == "quantizer" else TOLERANCES[dtype]
    with torch.no_grad():
        run = record(model, images(*SIZES[0]).to(dtype), folder)
        for size in SIZES[:count]:
            x = images(*size).to(dtype)
            assert error(run(x), model(x)) < limit, size


def test_every_registered_network_is_recorded() -> None:
    assert ROWS.keys() == set(spanets.list_models())


def test_every_option_is_set_in_the_default_run() -> None:
    alone = [param.values for param in CHOICES if param.marks]
    for name, arguments in alone:
        for key, value in arguments.items():
            assert any(name == other and given.get(key) == value for other, given in TOGETHER), key


@quiet
@pytest.mark.parametrize(("name_", "recorder"), cases())
def test_records_compute_what_the_network_does(name_: str, recorder: str, tmp_path: Path) -> None:
    check(shallow(name_), recorder, tmp_path)


@quiet
@pytest.mark.parametrize("recorder", DEAR)
def test_a_short_network_recorded_at_length(recorder: str, tmp_path: Path) -> None:
    check(short("spanet_nano"), recorder, tmp_path)


@quiet
@pytest.mark.parametrize(
    "recorder", ["onnx, older", pytest.param("quantizer", marks=[pytest.mark.slow])]
)
@pytest.mark.parametrize(("name_", "arguments"), CHOICES, ids=str)
def test_options(name_: str, arguments: dict[str, Any], recorder: str, tmp_path: Path) -> None:
    if arguments.get("spectral_method") == "fft":
        recorder = "jit.trace"  # others have no transform
    check(short(name_, **arguments), recorder, tmp_path)


@quiet
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    "recorder",
    [
        "jit.trace",
        "symbolic_trace",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("make_fx", "export")),
    ],
)
def test_number_formats(recorder: str, dtype: torch.dtype, tmp_path: Path) -> None:
    check(short("spanet_nano").to(dtype), recorder, tmp_path)


@quiet
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_inductor(tmp_path: Path) -> None:
    model, x = short("spanet_nano"), images(64, 64)
    with torch.no_grad():
        assert error(by_compile(model, x, tmp_path)(x), model(x)) < TOLERANCES[torch.float32]


def test_tolerances_tell_a_lost_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the older recorders lost is thousands of tolerances large."""
    model, x = short("spanet_nano"), images(64, 64)
    with torch.no_grad():
        whole, gain = model(x), fused.fixed_gain
        monkeypatch.setattr(fused, "fixed_gain", lambda *given: 0 * gain(*given))
        assert error(model(x), whole) > 1000 * TOLERANCE_OF_STEPS


class NoWritingIntoViews(TorchDispatchMode):
    """Fails at an operator that writes into a view."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        for value, argument in zip(args, operator._schema.arguments, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = value if isinstance(value, Sequence) else [value]
                assert not any(x._is_view() for x in written), f"{operator} writes into a view"
        return operator(*args, **(kwargs or {}))


def check_writing(model: nn.Module) -> None:
    x = images(64, 64)
    for layout in (torch.contiguous_format, torch.channels_last):
        for training in (True, False):
            with NoWritingIntoViews():
                model.train(training)(x.contiguous(memory_format=layout))


@pytest.mark.parametrize("name_", structures())
def test_no_network_writes_into_a_view(name_: str) -> None:
    check_writing(shallow(name_, drop_rate=0.1, drop_path_rate=0.1))


@pytest.mark.parametrize(("name_", "arguments"), CHOICES, ids=str)
def test_no_option_writes_into_a_view(name_: str, arguments: dict[str, Any]) -> None:
    check_writing(short(name_, **arguments))


@pytest.mark.parametrize("kind", ["semantic_fpn", "upernet"])
def test_no_segmenter_writes_into_a_view(kind: str) -> None:
    backbone = DenseBackbone("spanet_nano", {"depths": (1, 1, 1, 1)})
    check_writing(make_segmenter(kind, backbone, 3, {"channels": 8}))
