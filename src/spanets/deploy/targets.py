"""What models are exported to: a table of targets, each with its suffix, packages and writer."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spanets.deploy import xnnpack
from spanets.deploy.comparison import run_eager
from spanets.deploy.constants import fold_constants
from spanets.deploy.quantize import quantize
from spanets.deploy.tracing import Traceable, quiet, to_onnx, to_pt2
from spanets_runtime.errors import UsageError, UserError, first_line, nearest, require
from spanets_runtime.onnx import open_engine, open_session

Run = Callable[[Tensor], list[Tensor]]
"""Function from images (B, C, H, W) to the outputs of a written file."""


@dataclass(frozen=True)
class Target:
    """A format of exported files.

    Attributes:
        suffix: Suffix of the file.
        needs: Modules to import.
        extra: The extra of this package that installs them; "" if torch suffices.
        write: Function from a model and a path to lines for the user; it writes the file.
        open: Function from the path to one that runs the file here; None if nothing can.
        dtypes: Number formats.
        is_free: Whether batch size, height and width may be free.
        holds_metadata: Whether the metadata are in the file; otherwise they are beside it.
    """

    suffix: str
    needs: tuple[str, ...]
    extra: str
    write: Callable[[Traceable, Path], list[str]]
    open: Callable[[Path], Run] | None
    dtypes: tuple[str, ...] = ("float32",)
    is_free: bool = False
    holds_metadata: bool = False

    def require(self) -> None:
        """Raises a UserError with the command that installs a missing package."""
        with quiet():
            for module in self.needs:
                require(module, self.extra)


def choose_target(path: Path, to: str | None = None) -> tuple[str, Target]:
    """Returns the target of a file, with its name.

    Args:
        path: The file to write.
        to: Name of the target; None means by the suffix.

    Raises:
        UsageError: unknown target or suffix, or one that does not go with the other.
    """
    if to is not None and to not in TARGETS:
        known = ", ".join(TARGETS)
        raise UsageError(f"--to is {to!r}, allowed: {known}{nearest(to, TARGETS)}")
    suffix = path.suffix.lower()
    if to is None:
        to = next((name for name, target in TARGETS.items() if target.suffix == suffix), None)
    if to is None:
        known = ", ".join(target.suffix for target in TARGETS.values())
        raise UsageError(f"{path}: the suffix must be one of {known}")
    target = TARGETS[to]
    if suffix != target.suffix:
        raise UsageError(f"--to {to} writes a file FILE{target.suffix}, and --out is {path}")
    return to, target


# ---- writers


def _write_onnx(given: Traceable, path: Path) -> list[str]:
    content = to_onnx(given)
    if given.calibration:
        content = quantize(content, given.calibration_batches)
    path.write_bytes(content)
    return []


def _write_torch(given: Traceable, path: Path) -> list[str]:
    path.write_bytes(to_pt2(given))
    return []


def _write_openvino(given: Traceable, path: Path) -> list[str]:
    import openvino

    model = openvino.Core().read_model(to_onnx(given))
    openvino.save_model(model, path, compress_to_fp16=False)
    return []


def _write_executorch(given: Traceable, path: Path) -> list[str]:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.devtools.backend_debug import get_delegation_info
    from executorch.exir import to_edge_transform_and_lower

    program = fold_constants(given.program, given.images, xnnpack.DECOMPOSITIONS)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    found = get_delegation_info(edge.exported_program().graph_module)
    calls = [n for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    # Neither calls of XNNPACK nor picking one of several outputs is an operation.
    kinds = [n.name.partition("_default")[0] for n in calls if not _is_plumbing(n.name)]
    inside, outside = found.num_delegated_nodes, len(kinds)
    rest = ", ".join(f"{count} {kind}" for kind, count in Counter(kinds).most_common(4))
    path.write_bytes(edge.to_executorch().buffer)
    share = inside / max(inside + outside, 1)
    return [
        f"{inside} of {inside + outside} operations ({share:.1%}) run inside of XNNPACK, in "
        f"{found.num_delegated_subgraphs} parts; outside: {rest or 'none'}"
    ]


def _is_plumbing(name: str) -> bool:
    return name.startswith(("getitem", "executorch_call_delegate"))


def _write_coreml(given: Traceable, path: Path) -> list[str]:
    import coremltools

    model = coremltools.convert(
        given.constant_program.run_decompositions({}),
        outputs=[coremltools.TensorType(name=name) for name in given.outputs],
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS16,
        skip_model_load=True,  # compiling needs macOS
    )
    spec = model.get_spec()
    coremltools.utils.rename_feature(spec, spec.description.input[0].name, "images")
    coremltools.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(
        str(path)
    )
    functions = spec.mlProgram.functions.values()
    blocks = [block for f in functions for block in f.block_specializations.values()]
    kinds = Counter(op.type for block in blocks for op in block.operations)
    del kinds["const"]
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
    return [f"not run, because Core ML needs macOS: {kinds.total()} operations: {shown}, ..."]


def _write_litert(given: Traceable, path: Path) -> list[str]:
    import litert_torch

    litert_torch.convert(given.constant_program.module(), (given.images,)).export(str(path))
    return []


def _write_tensorrt(given: Traceable, path: Path) -> list[str]:
    onnx = path.with_suffix(".onnx").name
    raise UsageError(
        f"{path.name}: a TensorRT engine is built on the machine that runs it; export {onnx}, and "
        f"there run: trtexec --onnx={onnx} --saveEngine={path.name}"
    )


# ---- opening what was written


def _open_onnx(path: Path) -> Run:
    session = open_session(path.read_bytes())
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {"images": x.numpy()})]


def _open_torch(path: Path) -> Run:
    program = torch.export.load(path).module()
    return lambda x: run_eager(program, x)


def _open_engine(path: Path) -> Run:
    run = open_engine(path)
    return lambda x: [torch.from_numpy(y) for y in run(x.numpy())]


TARGETS: dict[str, Target] = {
    "onnx": Target(
        ".onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        "export",
        _write_onnx,
        _open_onnx,
        ("float32", "float16", "int8"),
        is_free=True,
        holds_metadata=True,
    ),
    "torch": Target(
        ".pt2",
        (),
        "",
        _write_torch,
        _open_torch,
        ("float32", "float16"),
        is_free=True,
        holds_metadata=True,
    ),
    "openvino": Target(
        ".xml",
        ("openvino", "onnx", "onnxscript"),
        "openvino",
        _write_openvino,
        _open_engine,
        is_free=True,
    ),
    "executorch": Target(".pte", ("executorch",), "executorch", _write_executorch, _open_engine),
    "coreml": Target(".mlpackage", ("coremltools",), "coreml", _write_coreml, None),
    "litert": Target(
        ".tflite", ("litert_torch", "ai_edge_litert"), "litert", _write_litert, _open_engine
    ),
    "tensorrt": Target(".engine", (), "", _write_tensorrt, None),
}
"""The targets by the words of `--to`."""


def write_target(name: str, given: Traceable, path: Path) -> list[str]:
    """Writes a model in the format of a target; returns lines for the user.

    Raises:
        UserError: the target's package cannot convert the model.
    """
    try:
        with quiet():
            return TARGETS[name].write(given, path)
    except UserError:
        raise
    # Each converter has its own kinds of errors.
    except Exception as error:
        raise UserError(f"{name} cannot convert the model: {first_line(error)}") from error
