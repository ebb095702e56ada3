"""Runs the kernels on the CPU by Triton's interpreter, in a process that was told so at its start.

Importing it does nothing in others.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

ACTIVE = os.environ.get("TRITON_INTERPRET") == "1"

if ACTIVE:
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from spanets import layers
    from spanets.kernels import (
        availability,
        gelu,
        mixing,
        mlp,
        modulation,
        moments,
        projection,
        separable,
        tap_gradients,
    )
    from spanets.spectral.execution import is_channels_last

    def _splat(_: InterpreterBuilder, shape: tl.block_type, scalar: TensorHandle) -> TensorHandle:
        # Triton 3.9's interpreter takes a scalar comparison for a whole number.
        value = np.full(shape.shape, scalar.data.ravel()[0], dtype=scalar.data.dtype)
        return TensorHandle(value, shape.scalar)

    InterpreterBuilder.create_splat = _splat
    for module in (gelu, mixing, mlp, modulation, moments, projection, separable, tap_gradients):
        # torch accepts no interpreted kernels.
        module.wrap_triton = lambda kernel: kernel


@contextmanager
def taken() -> Iterator[None]:
    """Has layers and mixers believe that channels-last maps lie on a GPU."""
    before = availability.runs_on_pixels, availability._compiles_for, layers.runs_on_pixels
    availability.runs_on_pixels = layers.runs_on_pixels = lambda x: (
        x.ndim == 4 and is_channels_last(x)
    )
    availability._compiles_for = lambda _: True
    try:
        yield
    finally:
        availability.runs_on_pixels, availability._compiles_for, layers.runs_on_pixels = before
