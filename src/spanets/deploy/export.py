"""Exports models to the formats that are deployed, and compares them with eager mode.

The exported model takes images (B, C, H, W) of any batch size, height and width, preprocessed as
its metadata describe. It returns logits, or with `features_only` one map for each stage.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.deploy import places
from spanets.deploy.comparison import compare_int8, compare_shapes, run_eager
from spanets.deploy.targets import TARGETS, Run, Target, choose_target, write_target
from spanets.deploy.tracing import DEFAULT_OPSET, Traceable, inference_form, on_cpu
from spanets.sources import Source, is_function, is_model_name, open_source
from spanets.tasks import load_task
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.onnx import MIN_FREE_SIDE, describe_beside, format_beside

DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.float32}
"""Number formats, each with the dtype of tracing; onnxruntime quantizes to int8 afterwards."""

# Largest allowed difference from eager float32, relative to the largest value, for rounding over a
# whole network. Seen: 3e-6 and 2e-3. For int8 no limit makes sense; check the accuracy instead.
TOLERANCES = {"float32": 1e-4, "float16": 5e-2, "int8": float("inf")}

OPSETS = range(18, 24)


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
        target: Name of the target, such as "onnx".
        files: All written files.
        notes: Lines for the user about what was written.
    """

    path: str
    bytes: int
    inputs: dict[str, list[int | str]]
    outputs: list[str]
    dtype: str
    differences: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None
    target: str = "onnx"
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def load_source(
    word: str,
    weights: str | None = None,
    features_only: bool = False,
    ema: bool | None = None,
    pretrained: bool | None = False,
) -> tuple[nn.Module, dict[str, Any], Source]:
    """Opens the model to export, and makes the metadata that tell a runtime how to use it.

    Args:
        word: A checkpoint of `spanets train`, a folder that `spanets push` wrote or its hub
            address, or a model's name; see `open_source`.
        weights: Weights file, ours or the authors'; only with a model's name.
        features_only: Whether to return one map for each stage instead of logits.
        ema: Which weights to load if the file also has averaged ones; see `load_weights`.
        pretrained: Whether a model's name gets published weights; see `open_source`.

    Returns:
        The network in evaluation mode; the metadata (model, arguments, preprocessing, version, and
        without features_only what the task adds, such as classes); the opened source.

    Raises:
        UsageError: unknown name, or weights for a checkpoint.
        UserError: unreadable file, or weights that do not fit.
    """
    if Path(word).suffix.lower() in {target.suffix for target in TARGETS.values()}:
        raise UsageError(f"{word} is an exported file; give the checkpoint it was exported from")
    by_name = is_model_name(word) or is_function(word)
    arguments = {"features_only": True} if features_only and by_name else None
    source = open_source(word, weights, ema, arguments, pretrained)
    info = source.info
    args = {key: value for key, value in info.model_args.items() if key != "features_only"}
    metadata = {
        "model": info.model,
        "model_args": args,
        "version": info.version,
        "preprocessing": copy.deepcopy(info.preprocessing),
    }
    if by_name:
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
    to: str | None = None,
) -> Exported:
    """Writes a model in the format of one of the `TARGETS`, and compares it with eager mode.

    It first folds adjacent linear operations (`timm.utils.reparameterize_model`).

    Args:
        model: Network from images (B, C, H, W) to logits or a list of maps; it is not modified.
        path: Output file; its suffix selects the format.
        size: Side, or height and width, of the images for tracing, in pixels.
        dtype: "float32", "float16" or "int8", as the target allows; inputs and outputs stay
            float32.
        dynamic: Whether batch size, height and width are free (sides from `MIN_FREE_SIDE` up), as
            some targets allow. Otherwise the file takes `batch` images of `size`.
        opset: ONNX opset, 18 to 23; None means 20, the first with a GELU operator.
        metadata: Plain values to store, such as class names and preprocessing; in the file, or
            beside it. The preprocessing of a file of one size gets this size.
        calibration: Preprocessed images (C, H, W) for "int8", which give the range of every map;
            see `quantize.calibration_images`.
        batch: Batch size, if it is fixed.
        allow_fft: Whether to write graphs with Fourier transforms, for comparison.
        to: Name in `TARGETS`; None means by the suffix.

    Returns:
        The file's description, with the differences from eager mode.

    Raises:
        UsageError: unknown target, dtype or opset, or a size that the model does not support.
        UserError: missing package, unwritable path, or a file with different outputs.
    """
    path = Path(path)
    name, target = choose_target(path, to)
    _check_options(path, name, target, dtype, dynamic, opset, calibration or [])
    target.require()
    places.check(path)
    model = on_cpu(model)
    height, width = (size, size) if isinstance(size, int) else size
    step = getattr(model, "size_step", 1)
    _check_sides((height, width), dynamic, step, calibration or [])
    shape_traced = (2 if dynamic else batch, _channels(model), height, width)
    try:
        images = torch.randn(shape_traced, generator=torch.Generator().manual_seed(0))
    except RuntimeError as error:  # out of memory, or a size that overflows
        largest = max(height, width)
        raise UsageError(f"--size is {largest}, too large for this machine's memory") from error
    metadata, told = _describe_size(metadata or {}, (height, width), dynamic)
    outputs = run_eager(model, images)
    names = list(getattr(model, "output_names", _output_names(outputs)))
    given = Traceable(
        inference_form(model, DTYPES[dtype]),
        images,
        {name: list(output.shape) for name, output in zip(names, outputs, strict=True)},
        dynamic,
        step,
        DEFAULT_OPSET if opset is None else opset,
        metadata,
        calibration or [],
        allow_fft,
    )
    with TemporaryDirectory(prefix="spanets-") as folder:
        staged = Path(folder) / path.name
        notes = write_target(name, given, staged)
        if not target.holds_metadata:
            describe_beside(staged).write_text(_format_beside(given), "utf-8")
        run = None if target.open is None else target.open(staged)
        differences, agreement = _compare(model, run, given)
        for shape, difference in differences.items():
            if not difference <= TOLERANCES[dtype]:  # NaN is too far off as well
                raise UserError(
                    f"{path}: not written: for images of {shape} it is off by {difference:.2g} of "
                    f"the largest value from eager float32, allowed is {TOLERANCES[dtype]:.0e}"
                )
        sizes = places.move(Path(folder), path)
    return Exported(
        str(path),
        sum(sizes.values()),
        {"images": given.shape},
        names,
        dtype,
        differences,
        agreement,
        name,
        list(sizes),
        [*notes, *told],
    )


def preprocessing_at(preprocessing: Mapping[str, Any], sides: tuple[int, int]) -> dict[str, Any]:
    """Returns the preprocessing of a file that takes images of one height and width.

    Preprocessing makes squares, so it stays as it is for other sides, and without a size.
    """
    values = dict(preprocessing)
    if "input_size" in values and sides[0] == sides[1]:
        values["input_size"] = [*values["input_size"][:-2], *sides]
    return values


def _describe_size(
    metadata: dict[str, Any], sides: tuple[int, int], dynamic: bool
) -> tuple[dict[str, Any], list[str]]:
    """Returns the metadata of a file, and a line if `spanets predict` cannot use it."""
    preprocessing = metadata.get("preprocessing", {})
    if dynamic or "input_size" not in preprocessing:
        return metadata, []
    height, width = sides
    told = (
        f"`spanets predict` cannot use this file: it takes images of {height}x{width}, and "
        "preprocessing makes squares"
    )
    values = {**metadata, "preprocessing": preprocessing_at(preprocessing, sides)}
    return values, [told] * (height != width)


def _check_options(
    path: Path,
    name: str,
    target: Target,
    dtype: str,
    dynamic: bool,
    opset: int | None,
    calibration: Sequence[NDArray[np.float32]],
) -> None:
    """Raises a UsageError for options that a target does not have."""
    if dtype not in DTYPES:
        raise UsageError(f"--dtype is {dtype!r}, must be float32, float16 or int8")
    if name != "onnx" and opset is not None:
        raise UsageError(f"--opset is ONNX's, leave it out for {path}")
    if opset is not None and opset not in OPSETS:
        raise UsageError(f"--opset is {opset}, must be {OPSETS[0]} to {OPSETS[-1]}")
    if dtype not in target.dtypes:
        known = ", ".join(target.dtypes)
        raise UsageError(f"--dtype is {dtype}, allowed for {path}: {known}")
    if dtype == "int8" and not calibration:
        raise UsageError("--dtype int8 needs images: --calibration DIR")
    if calibration and dtype != "int8":
        raise UsageError(f"--calibration goes with --dtype int8, not {dtype}")
    if dynamic and not target.is_free:
        raise UsageError(f"{path}: {name} takes images of one size; add --static")


def _check_sides(
    sides: tuple[int, int], dynamic: bool, step: int, calibration: Sequence[NDArray[np.float32]]
) -> None:
    """Raises a UsageError for a size that the file could not have."""
    height, width = sides
    for image in calibration:
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


def _compare(
    model: nn.Module, run: Run | None, given: Traceable
) -> tuple[dict[str, float], float | None]:
    """Returns the differences from eager mode, and the agreement for int8 classifiers."""
    if run is None:
        return {}, None
    if given.calibration:
        return compare_int8(model, run, given.calibration_batches, len(given.calibration))
    return compare_shapes(model, run, given.images, given.dynamic), None


def _format_beside(given: Traceable) -> str:
    batch = given.shape[0]
    outputs: dict[str, list[int | str]] = {
        name: [batch, *(shape[1:] if len(shape) == 2 or not given.dynamic else _free(shape))]
        for name, shape in given.outputs.items()
    }
    return format_beside(given.metadata, given.shape, outputs)


def _free(shape: Sequence[int]) -> list[int | str]:
    """Returns channels and free sides of a map."""
    return [shape[1], "rows", "columns"]


def _channels(model: nn.Module) -> int:
    inner = getattr(model, "model", model)  # features_only wraps the network
    return getattr(inner, "in_chans", 3)


def _output_names(outputs: Sequence[Tensor]) -> list[str]:
    if len(outputs) > 1:
        return [f"stage{i}" for i in range(len(outputs))]
    return ["logits" if outputs[0].ndim == 2 else "features"]
