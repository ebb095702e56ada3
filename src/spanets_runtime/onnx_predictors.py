"""Exported files of any task: each is predicted by the predictor of the task that it names."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from spanets_runtime.errors import UsageError
from spanets_runtime.listing import ImageSource
from spanets_runtime.onnx import OnnxFile, OnnxPredictor
from spanets_runtime.onnx_masks import OnnxMaskPredictor
from spanets_runtime.predict import ImagePrediction

Predict = Callable[[Iterable[ImageSource]], Iterator[ImagePrediction]]


def make_onnx_predictor(
    path: str, top: int = 5, out: Path | None = None, annotations: Path | None = None
) -> Predict:
    """Returns what predicts images with an exported file.

    Args:
        path: Written by `spanets export`.
        top: Classes for each image, of a classifier.
        out: Folder for masks, of a segmenter.
        annotations: Of a detector, whose exported files are not predicted: must be None.

    Raises:
        UsageError: a file of a task that needs its checkpoint, or options of another task.
        UserError: no onnxruntime, or a file that is damaged or of another make.
    """
    file = OnnxFile(path)
    make: Any = _PREDICTORS.get(file.task)
    if make is None:
        raise UsageError(
            f"{path} is exported for {file.task}, whose predictions need more than the graph; "
            "predict with the checkpoint it was exported from"
        )
    if annotations is not None:
        raise UsageError(f"--annotations is for checkpoints of detection, and {path} is none")
    return make(file, top, out)


def _label(file: OnnxFile, top: int, out: Path | None) -> Predict:
    predictor = OnnxPredictor(file)
    if out is not None:
        raise UsageError(f"--out is not for classification, and {file.path} labels whole images")
    return partial(predictor, top=top)


def _mask(file: OnnxFile, top: int, out: Path | None) -> Predict:
    if out is None:
        raise UsageError(f"{file.path} finds masks: name a folder for them with --out DIR")
    return partial(OnnxMaskPredictor(file), out=out)


# A file that names no task is a classifier by name, or a backbone, which `OnnxPredictor` refuses.
_PREDICTORS = {None: _label, "classification": _label, "segmentation": _mask}
