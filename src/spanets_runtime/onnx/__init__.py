"""Predictors for exported files; they need onnxruntime, but not torch."""

from spanets_runtime.onnx.classifier import OnnxPredictor
from spanets_runtime.onnx.file import (
    METADATA,
    MIN_FREE_SIDE,
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
    "METADATA",
    "MIN_FREE_SIDE",
    "OnnxFile",
    "OnnxMaskPredictor",
    "OnnxPredictor",
    "image_level_predictor",
    "images_input",
    "is_exported",
    "make_onnx_predictor",
    "make_onnx_rows",
    "open_session",
    "refuse_exported",
]
