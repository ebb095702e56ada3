"""Deprecated name of `spanets_runtime.onnx`, for one version."""

import warnings

from spanets_runtime.onnx import OnnxMaskPredictor

__all__ = ["OnnxMaskPredictor"]

warnings.warn(
    "spanets_runtime.onnx_masks is deprecated; import OnnxMaskPredictor from spanets_runtime.onnx",
    DeprecationWarning,
    stacklevel=2,
)
