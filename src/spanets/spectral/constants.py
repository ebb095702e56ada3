"""Constants that depend on sizes alone: computed once, and constants of exported graphs, too."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from spanets.spectral.tracing import is_exporting, is_traced, unrecorded


class SizeConstant:
    """Decorates a pure function of sizes and other plain values, then a dtype and a device.

    The decorated function takes a tensor first, for dtype and device. It caches its results by
    value, outside any model's state. An export that knows all sizes gets the cached tensor and
    stores it in the graph once for all its uses. Other traces may have free sizes, so they trace
    the computation.

    Attributes:
        build: The function without the cache.
        cached: The function with the cache; its arguments are those of `build`.
    """

    def __init__(self, build: Callable[..., Any]) -> None:
        self.build = build
        self.cached = lru_cache(maxsize=64)(self._compute)

    def __call__(self, like: Tensor, *values: Any) -> Any:
        """Returns the constant for these values, in the dtype and on the device of `like`."""
        known = not is_traced(like) or _records_fixed(values)
        return (self.cached if known else self.build)(*values, like.dtype, like.device)

    def _compute(self, *given: Any) -> Any:
        # Without a tracer's modes: the tensors must be real, as they outlive the trace, and a mode
        # that records calls would miss those of the first image in all others. (torch has no public
        # names for this.) An inference tensor in the cache would break a later training.
        quiet = torch._C.DisableTorchFunction()
        with _disable_current_modes(), quiet, unrecorded(), torch.inference_mode(False):
            return self.build(*given)


def _records_fixed(values: tuple[Any, ...]) -> bool:
    """Whether an exporter or tracer runs the code with these plain values, and so keeps constants.

    Dynamo hides symbolic values.
    """
    recording = torch.jit.is_tracing() or is_exporting()
    if not recording or torch.compiler.is_dynamo_compiling():
        return False
    flat = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
    return not any(isinstance(value, torch.SymInt | Tensor) for value in flat)
