"""What tensors run on: who traces them, how they lie, and a stretch of full precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def is_traced(x: Tensor) -> bool:
    """Whether a compiler, exporter or tracer runs the code: sizes may be symbolic.

    Fake and functional tensors, too, must not end up in a cache.
    """
    compiling = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return compiling or type(x) is not Tensor


def is_exporting() -> bool:
    """Whether torch.export runs the code; older versions of torch tell only that something does.

    `torch.compiler.is_exporting()` is true in torch.compile's graphs, too, as of torch 2.11.
    """
    if hasattr(torch.compiler, "_is_exporting_flag"):
        return torch.compiler._is_exporting_flag
    return torch.compiler.is_compiling()


def is_transformed() -> bool:
    """Whether torch.func runs the code: vmap knows no layouts, and no rules of our operators."""
    # torch.func has no public name for the question.
    return torch._C._are_functorch_transforms_active()


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel of (B, C, H, W) lie side by side.

    An exported graph has no strides, and its operators are written for channels first.
    """
    return not is_exporting() and x.stride(1) == 1


def runs_on_pixels(x: Tensor) -> bool:
    """Whether layers should treat maps like x as rows of pixels: on a GPU, channels last.

    There, linear layers and norms over contiguous rows have the fast kernels.
    """
    return x.is_cuda and x.ndim == 4 and is_channels_last(x)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Returns a context in which operations on x keep its number format."""
    # It has none, and `torch.amp.is_autocast_available` would break a compiler's graph.
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def modulo(x: Tensor, size: int) -> Tensor:
    """Returns x modulo a size; the size as a tensor, or ONNX cannot export a symbolic one."""
    return torch.remainder(x, torch.full((), size, dtype=x.dtype, device=x.device))


def square_root(size: int, like: Tensor) -> Tensor:
    """Returns √size in the type of `like`; a trace has powers of sizes in float32 alone."""
    return torch.full((), size, dtype=like.dtype, device=like.device).sqrt()


def check_map_size(height: int, width: int) -> None:
    """Raises ValueError for a map without samples."""
    # Symbolic sizes of a compiler are positive by its own rules; asking would add a guard.
    if isinstance(height, int) and isinstance(width, int) and min(height, width) < 1:
        raise ValueError(f"a map of {height}x{width} has no samples")
