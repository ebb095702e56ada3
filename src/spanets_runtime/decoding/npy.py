"""Reads arrays of NumPy's format; never unpickles."""

import math
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spanets_runtime.decoding.decoded import Refused, check_stored

MAGIC = b"\x93NUMPY"

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_MAX_HEADER = 10_000
_FEW = 16


def read_npy(file: BinaryIO, channels: int | None, max_pixels: int) -> NDArray[Any]:
    """Reads an image stored as (H, W), (H, W, C) or (C, H, W).

    Args:
        file: The open file.
        channels: Number of channels, which decides between the last two; the last axis is tried
            first. None takes a last axis of up to 16 for the channels.
        max_pixels: Limit of width times height.

    Returns:
        The image (H, W, C).

    Raises:
        Refused: it is too large, of another shape, holds Python objects, or is truncated.
    """
    size = file.seek(0, 2)
    file.seek(0)
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise Refused(f"a NumPy array of format {version}, which is not read")
    shape, is_fortran, dtype = _HEADERS[version](file, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise Refused("a NumPy array of Python objects, which are never loaded")
    axis = _channel_axis(shape, channels)
    height, width, count = (*shape[:2], 1) if axis is None else _order(shape, axis)
    check_stored(height, width, count, dtype, max_pixels)
    length = math.prod(shape) * dtype.itemsize
    if size - file.tell() < length:
        raise Refused("truncated or corrupt image (it holds less than its size)")
    array: NDArray[Any] = np.frombuffer(file.read(length), dtype)
    array = array.reshape(shape, order="F" if is_fortran else "C")
    return array[..., None] if axis is None else np.moveaxis(array, axis, -1)


def _channel_axis(shape: tuple[int, ...], channels: int | None) -> int | None:
    if len(shape) == 2:
        return None
    if len(shape) != 3:
        raise Refused(f"a NumPy array of shape {shape}, must be (H, W), (H, W, C) or (C, H, W)")
    if shape[2] == channels or (channels is None and shape[2] <= _FEW):
        return 2
    if shape[0] == channels or channels is None:
        return 0
    raise Refused(f"has shape {shape}, must have {channels} channels (data.channels)")


def _order(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*(side for i, side in enumerate(shape) if i != axis), shape[axis])
