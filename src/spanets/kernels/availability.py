"""Tells where the kernels run; imports Triton, or placeholders if it is not installed."""

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
except ImportError:  # CPU-only builds of torch come without it
    triton, tl = None, SimpleNamespace(constexpr=object)


def _is_recent(version: str) -> bool:
    """Whether this version of Triton supports the kernels.

    Older versions cannot pass tuples, which hold the kernels' windows, or they look for a GPU as
    soon as a kernel's number of warps is set.
    """
    return tuple(map(int, version.split(".")[:2])) >= (3, 4)


if triton is not None and not _is_recent(triton.__version__):
    triton = None

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# First GPU generation whose matrix units Triton uses; on older ones the kernels spill registers.
_CAPABILITY = (8, 0)

# This environment variable set to "0" turns the kernels off. They have no second derivatives.
_SWITCH = "SPANETS_KERNELS"


def is_supported(x: Tensor) -> bool:
    """Whether the kernels support x: channels-last maps on a GPU, outside of export."""
    return (
        runs_on_pixels(x)
        and x.dtype in DTYPES
        and not torch.jit.is_tracing()
        and not is_transformed()
        and x.is_contiguous(memory_format=torch.channels_last)
        and _compiles_for(x.device.index or 0)
    )


def supports_product(x: Tensor) -> bool:
    """Whether the kernels that also multiply by a weight support x.

    They do not support autocast of float32 maps, which computes the product in another dtype.
    """
    casts = x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)
    return is_supported(x) and not casts


def supports_inference(x: Tensor) -> bool:
    """Whether the kernels without gradients support x: half precision, gradients off."""
    return (
        isinstance(x, Tensor)  # not the proxy of a symbolic trace
        and not torch.is_grad_enabled()
        and x.dtype in (torch.bfloat16, torch.float16)
        and is_supported(x)
    )


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Makes the GPU of x current, as Triton launches need; compiled code does this itself."""
    if torch.compiler.is_compiling() or not x.is_cuda:
        return nullcontext()
    return torch.cuda.device(x.device)


def lay_out(x: Tensor) -> Tensor:
    """Returns maps in channels last, the memory layout that the kernels read.

    Gradients come in any layout, and so do saved tensors that a hook such as
    `torch.autograd.graph.save_on_cpu` restored.
    """
    return x.contiguous(memory_format=torch.channels_last)


def jit(function: Any) -> Any:
    """Applies `triton.jit`; without Triton, returns the function unchanged."""
    return function if triton is None else triton.jit(function)


def with_warps(count: int) -> Callable[[Any], Any]:
    """Sets a kernel's number of warps; Triton's default is 4.

    If the call sets it instead, compilers treat each call as a new kernel and compile it again.
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
    """Placeholder for an operator without Triton; it is never called."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def register_autograd(self, backward: Any, setup_context: Any) -> None:
        """Does nothing."""


def operator(name: str) -> Any:
    """Makes a `torch.library.triton_op` of a function that does not modify its arguments.

    Without Triton it makes a placeholder: torch would warn about each operator at import.
    """
    if triton is None:
        return _Unregistered
    return torch.library.triton_op(name, mutates_args=())


# torch.compile takes the result as a constant; otherwise it warns that it traces into the cache.
@torch.compiler.assume_constant_result
def _compiles_for(index: int) -> bool:
    return _has_support(index)


@lru_cache
def _has_support(index: int) -> bool:
    if triton is None or os.environ.get(_SWITCH) == "0":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(index) >= _CAPABILITY
