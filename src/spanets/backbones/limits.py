"""Keeps a checkpoint from asking for a model that is far larger than its weights."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as modules

from spanets.weights.errors import show_name
from spanets_runtime.errors import UserError

# A number among the arguments may be a width, a side of images or a count of layers.
_SMALLEST_LIMIT = 16_384
_LARGEST_LIMIT = 2**20

# Models make parts that they replace, and extractors of features parts that they leave out.
_TENSORS_PER_TENSOR = 8
_MODULES_PER_TENSOR = 64
_SPARE_PARTS = 4096

# Masks and indices are computed, not stored.
_BYTES_PER_BYTE = 16
_SPARE_BYTES = 256 * 2**20


class ModelTooLargeError(UserError):
    """A model that is larger than the weights it is for."""


def check_numbers(arguments: object, weights: Mapping[str, Tensor]) -> None:
    """Compares the numbers that a model is built from with the sides of its weights.

    Args:
        arguments: Nested values.
        weights: Of the model.

    Raises:
        ModelTooLargeError: a number is larger than any side, and than any image's.
    """
    sides = (side for value in weights.values() for side in value.shape)
    limit = min(max(_SMALLEST_LIMIT, len(weights), *sides, 0), _LARGEST_LIMIT)
    for name, number in _numbers(arguments):
        if not -limit <= number <= limit:  # NaN as well
            told = f"its model's {show_name(name) or 'argument'} is {number}"
            raise ModelTooLargeError(f"{told}, allowed: to {limit}")


def _numbers(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Yields every number with the key that it, or the list that it is in, stands under."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(part, str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part, name)
    elif isinstance(value, int | float):
        yield name, value


@contextmanager
def limited_model(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Stops this thread where it builds a model with far more in it than its weights have.

    Raises:
        ModelTooLargeError: it did.
    """
    building = _Building(weights)
    handles = [
        modules.register_module_parameter_registration_hook(building.count_tensor),
        modules.register_module_buffer_registration_hook(building.count_tensor),
        modules.register_module_module_registration_hook(building.count_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Building:
    """What a model may still have while it is built; torch calls the methods in every thread."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.thread = threading.get_ident()
        self.tensors = _TENSORS_PER_TENSOR * len(weights) + _SPARE_PARTS
        self.modules = _MODULES_PER_TENSOR * len(weights) + _SPARE_PARTS
        # Tensors that share memory have it once.
        memory = {v.untyped_storage().data_ptr(): v.untyped_storage() for v in weights.values()}
        held = sum(storage.nbytes() for storage in memory.values())
        self.bytes = _BYTES_PER_BYTE * held + _SPARE_BYTES

    def count_tensor(self, module: nn.Module, name: str, value: Any) -> None:
        """Counts a parameter or buffer."""
        if isinstance(value, Tensor) and threading.get_ident() == self.thread:
            self.tensors -= 1
            self.bytes -= _size(value)
            self._check()

    def count_module(self, module: nn.Module, name: str, part: Any) -> None:
        """Counts a module."""
        if threading.get_ident() == self.thread:
            self.modules -= 1
            self._check()

    def _check(self) -> None:
        if min(self.tensors, self.modules, self.bytes) < 0:
            raise ModelTooLargeError("its model is far larger than its weights")


def _size(value: Tensor) -> int:
    return value.numel() * value.dtype.itemsize
