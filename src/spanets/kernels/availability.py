"""Where the kernels run; and Triton, or what stands in for it where it is not installed."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from spanets.spectral.tracing import is_transformed, runs_on_pixels

try:
    import triton
    import triton.language as tl
except ImportError:  # as with torch for the CPU alone
    triton, tl = None, SimpleNamespace(constexpr=object)


def _serves(version: str) -> bool:
    """Whether kernels may be written for a version of Triton.

    Older ones do not pass tuples, in which they hold their windows, or look for a GPU when a
    kernel's number of warps is told.
    """
    return tuple(map(int, version.split(".")[:2])) >= (3, 4)


if triton is not None and not _serves(triton.__version__):
    triton = None

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# The first generation of GPUs whose matrix units Triton uses; on older ones registers spill.
_CAPABILITY = (8, 0)

# Told "0", the environment turns the kernels off: they have no second derivatives.
_SWITCH = "SPANETS_KERNELS"


def is_supported(x: Tensor) -> bool:
    """Whether the kernels run on maps like x: channels last, on a GPU, and not to be exported."""
    return (
        runs_on_pixels(x)
        and x.dtype in DTYPES
        and not torch.jit.is_tracing()
        and not is_transformed()
        and x.is_contiguous(memory_format=torch.channels_last)
        and _compiles_for(x.device.index or 0)
    )


def supports_product(x: Tensor) -> bool:
    """Whether those that multiply by a weight, too, run on maps like x.

    Autocast would have the product of float32 maps in another type than the rest.
    """
    casts = x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)
    return is_supported(x) and not casts


def supports_inference(x: Tensor) -> bool:
    """Whether those without gradients run on maps like x, in half precision."""
    return (
        isinstance(x, Tensor)  # and not what a tracer puts in its place
        and not torch.is_grad_enabled()
        and x.dtype in (torch.bfloat16, torch.float16)
        and is_supported(x)
    )


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Makes the GPU of x the current one, on which Triton starts kernels; compilers do it alone."""
    if torch.compiler.is_compiling() or not x.is_cuda:
        return nullcontext()
    return torch.cuda.device(x.device)


def lay_out(x: Tensor) -> Tensor:
    """Returns maps as the kernels read them, channels last.

    Gradients come in any layout, and what was kept for them, too, where a hook brought it back from
    elsewhere (`torch.autograd.graph.save_on_cpu`).
    """
    return x.contiguous(memory_format=torch.channels_last)


def jit(function: Any) -> Any:
    """`triton.jit`, or the function as it is without Triton."""
    return function if triton is None else triton.jit(function)


def with_warps(count: int) -> Callable[[Any], Any]:
    """Fixes a kernel's number of warps; 4 is the default.

    Where the call tells it instead, compilers take each call for another kernel, and compile it.
    """

    def fix(kernel: Any) -> Any:
        if triton is None:
            return kernel
        return triton.autotune([triton.Config({}, num_warps=count)], key=[])(kernel)

    return fix


def divide_up(a: int, b: int) -> int:
    """Returns a / b, rounded up."""
    return (a + b - 1) // b


class _Unregistered:
    """A function that nothing calls, for want of Triton."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def register_autograd(self, backward: Any, setup_context: Any) -> None:
        """Does nothing."""


def operator(name: str) -> Any:
    """`torch.library.triton_op` of a function that changes none of its arguments.

    Without Triton the operator is not made: torch would warn of each when it is imported.
    """
    if triton is None:
        return _Unregistered
    return torch.library.triton_op(name, mutates_args=())


# A constant to torch.compile, which would look, with a warning, into the cache.
@torch.compiler.assume_constant_result
def _compiles_for(index: int) -> bool:
    return _asked(index)


@lru_cache
def _asked(index: int) -> bool:
    if triton is None or os.environ.get(_SWITCH) == "0":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(index) >= _CAPABILITY
