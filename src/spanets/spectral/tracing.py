"""Questions about tensors: tracing, exporting, memory layout, autocast."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext


def is_traced(x: Tensor) -> bool:
    """Whether a compiler, exporter or tracer runs the code, so that sizes may be symbolic.

    True for fake and functional tensors as well: they must not enter a cache.
    """
    compiling = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return compiling or type(x) is not Tensor


@contextmanager
def unrecorded() -> Iterator[None]:
    """Keeps `torch.jit.trace` from recording; what is computed inside becomes a constant."""
    # torch has no public function for this, and its stubs lack one of these.
    core: Any = torch._C
    state = core._get_tracing_state()
    core._set_tracing_state(None)
    try:
        yield
    finally:
        core._set_tracing_state(state)


def is_exporting() -> bool:
    """Whether torch.export runs the code; in older torch, also true while torch.compile does.

    As of torch 2.11, `torch.compiler.is_exporting()` is true under torch.compile, too.
    """
    if hasattr(torch.compiler, "_is_exporting_flag"):
        return torch.compiler._is_exporting_flag
    return torch.compiler.is_compiling()


def is_recorded() -> bool:
    """Whether a function mode sees every call, as those of NNCF and of other recorders do.

    They look for layers with parameters, so weights should not be computed on the way. Setting a
    default device is a function mode, too, but watches nothing. Exporters have modes of their own.
    """
    # torch has no public name for the modes that are on.
    if torch.compiler.is_compiling() or not torch._C._len_torch_function_stack():
        return False
    return any(not isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack())


def is_transformed() -> bool:
    """Whether torch.func runs the code; vmap supports neither memory layouts nor our operators."""
    # torch.func has no public function for this.
    return torch._C._are_functorch_transforms_active()


def is_channels_last(x: Tensor) -> bool:
    """Whether maps (B, C, H, W) are channels last; always False during export.

    An exported graph has no strides, and its operators expect channels first.
    """
    return not is_exporting() and x.stride(1) == 1


def runs_on_pixels(x: Tensor) -> bool:
    """Whether layers should treat x as rows of pixels: channels-last maps on a GPU.

    There, linear layers and norms over contiguous rows have fast kernels.
    """
    return x.is_cuda and x.ndim == 4 and is_channels_last(x)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Returns a context in which autocast is off for the device of x."""
    # Meta has no autocast, and `torch.amp.is_autocast_available` would cause a graph break. Where
    # autocast is off, an exported graph needs no region for it.
    if x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def fixed_size(size: int) -> int:
    """Returns a size that no input changes, such as the channels; `torch.jit.trace` records it.

    It would compute from a recorded size, in the graph, what is known before.
    """
    if not (torch.jit.is_tracing() and isinstance(size, Tensor)):
        return size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of values that become constants
        return int(size)


def modulo(x: Tensor, size: int) -> Tensor:
    """Returns x modulo size; uses a tensor for it, since ONNX cannot export a symbolic modulus."""
    return torch.remainder(x, torch.full((), size, dtype=x.dtype, device=x.device))


def square_root(size: int, like: Tensor) -> Tensor:
    """Returns √size in the dtype of like; a trace computes powers of sizes only in float32."""
    return torch.full((), size, dtype=like.dtype, device=like.device).sqrt()


def check_map_size(*size: int) -> None:
    """Raises ValueError for an empty map."""
    # Compilers assume that symbolic sizes are positive; comparing one would add a guard.
    if all(isinstance(side, int) for side in size) and min(size) < 1:
        raise ValueError(f"a map of {'x'.join(map(str, size))} has no samples")


def check_floating_point(x: Tensor) -> None:
    """Raises ValueError for maps of whole numbers, to which gains would be rounded, or complex."""
    if not x.is_floating_point():
        raise ValueError(f"maps of {x.dtype} cannot be filtered; convert them, as by x.float()")
