"""Predictors for exported files; they need the runtime of the file, but not torch."""

from spanets_runtime.onnx.classifier import OnnxPredictor
from spanets_runtime.onnx.engines import (
    ENGINES,
    Engine,
    describe_beside,
    format_beside,
    open_engine,
    open_exported,
)
from spanets_runtime.onnx.file import (
    METADATA,
    MIN_FREE_SIDE,
    ExportedFile,
    OnnxFile,
    images_input,
    is_exported,
    open_session,
)
from spanets_runtime.onnx.predictors import (
    image_level_predictor,
    make_onnx_predictor,
    make_onnx_rows,
    refuse_exported,
)
from spanets_runtime.onnx.segmenter import OnnxMaskPredictor

__all__ = [
    "ENGINES",
    "METADATA",
    "MIN_FREE_SIDE",
    "Engine",
    "ExportedFile",
    "OnnxFile",
    "OnnxMaskPredictor",
    "OnnxPredictor",
    "describe_beside",
    "format_beside",
    "image_level_predictor",
    "images_input",
    "is_exported",
    "make_onnx_predictor",
    "make_onnx_rows",
    "open_engine",
    "open_exported",
    "open_session",
    "refuse_exported",
]
