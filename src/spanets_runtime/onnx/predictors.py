"""Chooses the predictor of an exported file by the task in its metadata."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from spanets_runtime.errors import UsageError
from spanets_runtime.listing import ImageSource
from spanets_runtime.onnx.classifier import OnnxPredictor
from spanets_runtime.onnx.engines import open_exported
from spanets_runtime.onnx.file import ExportedFile
from spanets_runtime.onnx.regressor import OnnxRegressor
from spanets_runtime.onnx.segmenter import OnnxMaskPredictor
from spanets_runtime.onnx.tagger import OnnxTagger
from spanets_runtime.predict import ImagePrediction
from spanets_runtime.preprocessing import give_rows
from spanets_runtime.tables import Columns, refuse_task

Predict = Callable[[Iterable[ImageSource]], Iterator[ImagePrediction]]


def make_onnx_predictor(
    path: str,
    top: int = 5,
    out: Path | None = None,
    annotations: Path | None = None,
    calibrated: bool = False,
    tta: bool = False,
) -> Predict:
    """Returns a function that predicts images with an exported file.

    Args:
        path: Path of a file that `spanets export` wrote.
        top: Number of classes for each image (classifiers).
        out: Folder for masks (segmenters).
        annotations: Must be None, because only detectors' checkpoints support it.
        calibrated: Whether to use the temperature in the file (classifiers).
        tta: Whether to average over an image and its mirror image (classifiers).

    Raises:
        UsageError: the task can only predict with its checkpoint, or an option is for other tasks.
        UserError: the runtime is missing, or the file is damaged or not from `spanets export`.
    """
    file = open_exported(path)
    make: Any = _PREDICTORS.get(file.task)
    if make is None:
        raise UsageError(
            f"{path} is exported for {file.task}, whose predictions need more than the graph; "
            "predict with the checkpoint it was exported from"
        )
    if annotations is not None:
        raise UsageError(f"--annotations is only for detection checkpoints, and {path} is not one")
    if make is not _label and calibrated:
        raise UsageError(f"--calibrated is for classification, and {path} is for {file.task}")
    if make is _mask and tta:
        raise UsageError(refuse_exported("--tta", path))
    if make is not _label and tta:
        raise UsageError(f"--tta is not for {file.task}; leave it out for {path}")
    return make(file, top, out, calibrated, tta) if make is _label else make(file, top, out)


def image_level_predictor(file: ExportedFile) -> OnnxPredictor:
    """Returns the predictor of an open file with one row of outputs for each image."""
    return _IMAGE_LEVEL[file.task](file)


def refuse_exported(option: str, path: str | Path) -> str:
    """Returns the message for an option that only works with a checkpoint."""
    return f"{option} takes a checkpoint, and {path} is an exported file; use the checkpoint"


def make_onnx_rows(path: str, top: int, calibrated: bool, tta: bool) -> tuple[Columns, Predict]:
    """Returns the columns of an exported classifier's table, and a function that predicts images.

    Args:
        path, top, calibrated, tta: See `make_onnx_predictor`.

    Raises:
        UsageError: the file is for another task.
        UserError: the runtime is missing, or the file is damaged or not from `spanets export`.
    """
    file = open_exported(path)
    if file.task not in (None, "classification"):
        refuse_task(path, file.task)
    predictor = OnnxPredictor(file, calibrated=calibrated, mirrored=tta)
    predict = give_rows(partial(predictor, top=top), predictor.preprocess)
    return Columns(min(top, len(predictor.classes))), predict


def _label(file: ExportedFile, top: int, out: Path | None, calibrated: bool, tta: bool) -> Predict:
    predictor = OnnxPredictor(file, calibrated=calibrated, mirrored=tta)
    _refuse_folder(file, out)
    return partial(predictor, top=top)


def _tag(file: ExportedFile, top: int, out: Path | None) -> Predict:
    _refuse_folder(file, out)
    return partial(OnnxTagger(file), top=top)


def _measure(file: ExportedFile, top: int, out: Path | None) -> Predict:
    _refuse_folder(file, out)
    return OnnxRegressor(file)


def _refuse_folder(file: ExportedFile, out: Path | None) -> None:
    if out is not None:
        task = file.task or "classification"
        raise UsageError(f"--out is not for {task}, and {file.path} labels whole images")


def _mask(file: ExportedFile, top: int, out: Path | None) -> Predict:
    if out is None:
        raise UsageError(f"{file.path} finds masks: name a folder for them with --out DIR")
    return partial(OnnxMaskPredictor(file), out=out)


# A file without a task is an untrained classifier, or a backbone, which `OnnxPredictor` refuses.
_PREDICTORS = {
    None: _label,
    "classification": _label,
    "multilabel": _tag,
    "regression": _measure,
    "segmentation": _mask,
}
_IMAGE_LEVEL = {
    None: OnnxPredictor,
    "classification": OnnxPredictor,
    "multilabel": OnnxTagger,
    "regression": OnnxRegressor,
}
