"""Whether tensors are real, or placeholders of something that traces the computation."""

import torch
from torch import Tensor


def is_traced(x: Tensor) -> bool:
    """Whether a compiler, exporter or tracer runs the code: sizes may be symbolic.

    Fake and functional tensors, too, must not end up in a cache.
    """
    compiling = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return compiling or type(x) is not Tensor
