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


# Older versions of torch tell only that something compiles.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel of (B, C, H, W) lie side by side.

    An exported graph has no strides, and its operators are written for channels first.
    """
    return not _is_exporting() and x.stride(1) == 1


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Returns a context in which operations on x keep its number format."""
    if not torch.amp.is_autocast_available(x.device.type):  # as on the meta device
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def modulo(x: Tensor, size: int) -> Tensor:
    """Returns x modulo a size; the size as a tensor, or ONNX cannot export a symbolic one."""
    return torch.remainder(x, torch.full((), size, dtype=x.dtype, device=x.device))


def check_map_size(height: int, width: int) -> None:
    """Raises ValueError for a map without samples."""
    # Symbolic sizes of a compiler are positive by its own rules; asking would add a guard.
    if isinstance(height, int) and isinstance(width, int) and min(height, width) < 1:
        raise ValueError(f"a map of {height}x{width} has no samples")
