"""Has the kernels taken where there is no GPU: traced, or computed by Triton's interpreter.

It computes in a process that was told so at its start; in others importing this changes nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spanets.kernels import availability, forms, fused
from spanets.spectral.tracing import is_channels_last

ACTIVE = os.environ.get("TRITON_INTERPRET") == "1"

if ACTIVE:
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from spanets.kernels import (
        gelu,
        mixing,
        mlp,
        modulation,
        moments,
        projection,
        separable,
        tap_gradients,
    )

    def _splat(_: InterpreterBuilder, shape: tl.block_type, scalar: TensorHandle) -> TensorHandle:
        # Triton 3.9's interpreter takes a scalar comparison for a whole number.
        value = np.full(shape.shape, scalar.data.ravel()[0], dtype=scalar.data.dtype)
        return TensorHandle(value, shape.scalar)

    InterpreterBuilder.create_splat = _splat
    for module in (gelu, mixing, mlp, modulation, moments, projection, separable, tap_gradients):
        # torch accepts no interpreted kernels.
        module.wrap_triton = lambda kernel: kernel


# As the function in whose place it is put, which compilers take for a constant.
@torch.compiler.assume_constant_result
def _yes(_: int) -> bool:
    return True


@contextmanager
def taken() -> Iterator[None]:
    """Has layers and mixers believe that channels-last maps lie on a GPU."""
    modules, compiles = (availability, forms, fused), availability._compiles_for
    before = [module.runs_on_pixels for module in modules]
    for module in modules:
        module.runs_on_pixels = lambda x: x.ndim == 4 and is_channels_last(x)
    availability._compiles_for = _yes
    try:
        yield
    finally:
        availability._compiles_for = compiles
        for module, asked in zip(modules, before, strict=True):
            module.runs_on_pixels = asked
