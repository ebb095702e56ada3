"""Exports models to ONNX graphs and `torch.export` programs, and compares them with eager mode.

The exported model takes images (B, C, H, W) of any batch size, height and width, preprocessed as
its metadata describe. It returns logits, or with `features_only` one map for each stage.
"""

import copy
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from spanets.deploy.comparison import compare_int8, compare_shapes, run_eager
from spanets.deploy.onnx_graph import forget_origin, name_sizes
from spanets.deploy.quantize import quantize
from spanets.sources import Source, is_checkpoint, open_source
from spanets.tasks import load_task
from spanets_runtime.errors import UsageError, UserError, first_line, require
from spanets_runtime.files import check_place, write_atomically
from spanets_runtime.onnx import METADATA, MIN_FREE_SIDE

SUFFIXES = (".onnx", ".pt2")

DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.float32}
"""Number formats, each with the dtype of tracing; onnxruntime quantizes to int8 afterwards."""

# Largest allowed difference from eager float32, relative to the largest value, for rounding over a
# whole network. Seen: 3e-6 and 2e-3. For int8 no limit makes sense; check the accuracy instead.
TOLERANCES = {"float32": 1e-4, "float16": 5e-2, "int8": float("inf")}

# ONNX operators that runtimes reject or run very slowly.
UNWANTED = ("DFT", "STFT", "If", "Loop", "SequenceAt")

OPSETS = range(18, 24)
DEFAULT_OPSET = 20


@dataclass(frozen=True)
class Exported:
    """Result of `export_model`.

    Attributes:
        path: Path of the file.
        bytes: File size.
        inputs: Name and shape of the images; a free size is a text.
        outputs: Names of the outputs.
        dtype: Number format of the weights and of the computation.
        differences: Largest difference from the eager float32 model, relative to its largest
            value, by the shape of the random test images; for int8 on the calibration images.
        agreement: For int8 classifiers, fraction of the calibration images with the same class as
            in the eager float32 model.
    """

    path: str
    bytes: int
    inputs: dict[str, list[int | str]]
    outputs: list[str]
    dtype: str
    differences: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


class _Cast(nn.Module):
    """A model that computes in another dtype, with float32 inputs and outputs."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        outputs = self.model(images.to(self.dtype))
        if isinstance(outputs, Tensor):
            return outputs.float()
        return [output.float() for output in outputs]


def load_source(
    word: str,
    weights: str | None = None,
    features_only: bool = False,
    ema: bool | None = None,
    pretrained: bool | None = False,
) -> tuple[nn.Module, dict[str, Any], Source]:
    """Opens the model to export, and makes the metadata that tell a runtime how to use it.

    Args:
        word: A checkpoint of `spanets train`, or a model's name; see `open_source`.
        weights: Weights file, ours or the authors'; only with a model's name.
        features_only: Whether to return one map for each stage instead of logits.
        ema: Which weights to load if the file also has averaged ones; see `load_weights`.
        pretrained: Whether a model's name gets published weights; see `open_source`.

    Returns:
        The network in evaluation mode; the metadata (model, arguments, preprocessing, version, and
        without features_only task and classes); the opened source.

    Raises:
        UsageError: unknown name, or weights for a checkpoint.
        UserError: unreadable file, or weights that do not fit.
    """
    if Path(word).suffix.lower() in SUFFIXES:
        raise UsageError(f"{word} is an exported file; give the checkpoint it was exported from")
    arguments = {"features_only": True} if features_only and not is_checkpoint(word) else None
    source = open_source(word, weights, ema, arguments, pretrained)
    info = source.info
    args = {key: value for key, value in info.model_args.items() if key != "features_only"}
    metadata = {
        "model": info.model,
        "model_args": args,
        "version": info.version,
        "preprocessing": copy.deepcopy(info.preprocessing),
    }
    if not source.is_checkpoint:
        if info.classes and not features_only:
            metadata["classes"] = info.classes
        return source.network, metadata, source
    task = load_task(info.task)
    if not features_only:
        metadata |= task.describe_export(info)
    return task.exportable(source, features_only), metadata, source


def export_model(
    model: nn.Module,
    path: str | Path,
    size: int | tuple[int, int] = 224,
    dtype: str = "float32",
    dynamic: bool = True,
    opset: int | None = None,
    metadata: dict[str, Any] | None = None,
    calibration: Sequence[NDArray[np.float32]] | None = None,
    batch: int = 1,
    allow_fft: bool = False,
) -> Exported:
    """Writes a model as an ONNX graph (.onnx) or a program of `torch.export` (.pt2), and checks it.

    It first folds adjacent linear operations (`timm.utils.reparameterize_model`).

    Args:
        model: Network from images (B, C, H, W) to logits or a list of maps; it is not modified.
        path: Output file; its suffix selects the format.
        size: Side, or height and width, of the images for tracing, in pixels.
        dtype: "float32", "float16" or, for ONNX, "int8"; inputs and outputs stay float32.
        dynamic: Whether batch size, height and width are free (sides from `MIN_FREE_SIDE` up).
            Otherwise the file takes `batch` images of `size`.
        opset: ONNX opset, 18 to 23; None means 20, the first with a GELU operator.
        metadata: Plain values to store in the file, such as class names and preprocessing.
        calibration: Preprocessed images (C, H, W) for "int8", which give the range of every map;
            see `quantize.calibration_images`.
        batch: Batch size, if it is fixed.
        allow_fft: Whether to write graphs with Fourier transforms, for comparison.

    Returns:
        The file's description, with the differences from eager mode.

    Raises:
        UsageError: unknown suffix, dtype or opset, or a size that the model does not support.
        UserError: missing package, unwritable path, or a file with different outputs.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: the suffix must be {' or '.join(SUFFIXES)}")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype is {dtype!r}, must be float32, float16 or int8")
    if path.suffix != ".onnx" and opset is not None:
        raise UsageError(f"--opset is ONNX's, leave it out for {path}")
    opset = DEFAULT_OPSET if opset is None else opset
    if path.suffix == ".onnx":
        if opset not in OPSETS:
            raise UsageError(f"--opset is {opset}, must be {OPSETS[0]} to {OPSETS[-1]}")
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, "export")
    if dtype == "int8" and (path.suffix != ".onnx" or not calibration):
        raise UsageError("--dtype int8 needs a FILE.onnx, and images: --calibration DIR")
    if calibration and dtype != "int8":
        raise UsageError(f"--calibration goes with --dtype int8, not {dtype}")
    check_place(path)
    model = _on_cpu(model)
    height, width = (size, size) if isinstance(size, int) else size
    sides = (height, width)
    step = getattr(model, "size_step", 1)
    for image in calibration or []:
        if not dynamic and image.shape[1:] != sides:
            found = "x".join(map(str, image.shape[1:]))
            raise UsageError(
                f"--dtype int8: the calibration images are {found}, the file would take "
                f"{height}x{width}"
            )
    smallest = max(MIN_FREE_SIDE, 2 * step)
    if dynamic and (min(sides) < smallest or any(side % step for side in sides)):
        steps = f" and are multiples of {step}" if step > 1 else ""
        raise UsageError(
            f"--size is {min(sides)}, but free sizes start at {smallest}{steps}; give another one "
            "or fix it with --static"
        )
    shape_traced = (2 if dynamic else batch, _channels(model), *sides)
    try:
        images = torch.randn(shape_traced, generator=torch.Generator().manual_seed(0))
    except RuntimeError as error:  # out of memory, or a size that overflows
        raise UsageError(f"--size is {max(sides)}, too large for this machine's memory") from error
    outputs = run_eager(model, images)
    names = list(getattr(model, "output_names", _output_names(outputs)))
    shape: list[int | str] = ["batch", images.shape[1], "height", "width"]
    if not dynamic:
        shape = list(images.shape)
    program = _trace(_inference_form(model, DTYPES[dtype]), images, dynamic, step)
    if path.suffix == ".onnx":
        content = _to_onnx(program, names, opset, metadata or {}, allow_fft)
        if dtype == "int8":
            content = quantize(content, calibration or [])
    else:
        content = _to_pt2(program, metadata or {})
    agreement = None
    if dtype == "int8":
        differences, agreement = compare_int8(model, content, calibration or [])
    else:
        differences = compare_shapes(model, content, path.suffix, images, dynamic)
    for given, difference in differences.items():
        if not difference <= TOLERANCES[dtype]:  # NaN is too far off as well
            raise UserError(
                f"{path}: not written: for images of {given} it is off by {difference:.2g} of the "
                f"largest value from eager float32, allowed is {TOLERANCES[dtype]:.0e}"
            )
    write_atomically(path, lambda file: file.write(content))
    return Exported(
        str(path), len(content), {"images": shape}, names, dtype, differences, agreement
    )


def _on_cpu(model: nn.Module) -> nn.Module:
    """Returns a copy on the CPU, in evaluation mode, whose weights may be changed."""
    return copy.deepcopy(model).cpu().eval().requires_grad_(False)


def _inference_form(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Returns a copy with linear operations folded, in the given dtype."""
    folded = reparameterize_model(model)
    return folded if dtype == torch.float32 else _Cast(folded, dtype)


def _channels(model: nn.Module) -> int:
    inner = getattr(model, "model", model)  # features_only wraps the network
    return getattr(inner, "in_chans", 3)


def _output_names(outputs: Sequence[Tensor]) -> list[str]:
    if len(outputs) > 1:
        return [f"stage{i}" for i in range(len(outputs))]
    return ["logits" if outputs[0].ndim == 2 else "features"]


def _trace(model: nn.Module, images: Tensor, dynamic: bool, step: int) -> ExportedProgram:
    if step == 1:
        sides = [Dim(name, min=MIN_FREE_SIDE) for name in ("height", "width")]
    else:
        sides = [step * Dim(f"{name}_steps", min=2) for name in ("height", "width")]
    free = {0: Dim("batch"), 2: sides[0], 3: sides[1]}
    shapes = (free,) if dynamic else None
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(model, (images,), dynamic_shapes=shapes, strict=False)
    # The exporter raises any kind of exception, with pages of text.
    except Exception as error:
        hint = "; try without free sizes (--static)" if dynamic else ""
        said = first_line(error).split("! For more information")[0]  # a reference to torch's logs
        raise UserError(f"torch.export cannot trace the model: {said}{hint}") from error


def _to_pt2(program: ExportedProgram, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={"spanets.json": json.dumps(metadata)})
    return buffer.getvalue()


def _to_onnx(
    program: ExportedProgram,
    names: list[str],
    opset: int,
    metadata: dict[str, Any],
    allow_fft: bool,
) -> bytes:
    import onnx

    with _quiet():
        converted = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=names,
            opset_version=opset,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert converted is not None
    graph = converted.model_proto
    found = {node.op_type for node in graph.graph.node} & set(UNWANTED)
    if found and not allow_fft:
        raise UserError(
            f"the graph has {', '.join(sorted(found))}, which runtimes reject or run very slowly; "
            "models of this package have none unless spectral_method is 'fft'"
        )
    name_sizes(graph.graph)
    forget_origin(graph)
    onnx.helper.set_model_props(graph, {METADATA: json.dumps(metadata)})
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
