"""Stops a checkpoint from requesting a model that is far larger than its weights."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as modules

from spanets.weights.errors import show_name
from spanets_runtime.errors import UserError

# A number in the arguments may be a width, an image side or a layer count.
_SMALLEST_LIMIT = 16_384
_LARGEST_LIMIT = 2**20

# Some models build parts and replace them; feature extractors build parts and drop them.
_TENSORS_PER_TENSOR = 8
_MODULES_PER_TENSOR = 64
_SPARE_PARTS = 4096

# Masks and indices are buffers that are computed, not stored in the weights.
_BYTES_PER_BYTE = 16
_SPARE_BYTES = 256 * 2**20


class ModelTooLargeError(UserError):
    """A model is far larger than the weights that it should load."""


def check_numbers(arguments: object, weights: Mapping[str, Tensor]) -> None:
    """Checks that no number in a model's arguments is far larger than its weights' dimensions.

    Args:
        arguments: Model arguments, nested lists and mappings.
        weights: Weights of the model.

    Raises:
        ModelTooLargeError: a number is larger than every dimension and every plausible image side.
    """
    sides = (side for value in weights.values() for side in value.shape)
    limit = min(max(_SMALLEST_LIMIT, len(weights), *sides, 0), _LARGEST_LIMIT)
    for name, number in _numbers(arguments):
        if not -limit <= number <= limit:  # NaN as well
            what = f"its model's {show_name(name) or 'argument'} is {number}"
            raise ModelTooLargeError(f"{what}, allowed: to {limit}")


def _numbers(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Yields every number with its key, or with the key of the list that contains it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(part, str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part, name)
    elif isinstance(value, int | float):
        yield name, value


@contextmanager
def limited_model(weights: Mapping[str, Tensor], spare_bytes: int = _SPARE_BYTES) -> Iterator[None]:
    """Returns a context that stops building a model far larger than these weights.

    Args:
        weights: Weights of the model.
        spare_bytes: What it may need besides.

    Raises:
        ModelTooLargeError: the model has too many modules, tensors or bytes.
    """
    building = _Building(weights, spare_bytes)
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
    """Counts down what a model may still allocate. torch calls the hooks in all threads."""

    def __init__(self, weights: Mapping[str, Tensor], spare_bytes: int) -> None:
        self.thread = threading.get_ident()
        self.tensors = _TENSORS_PER_TENSOR * len(weights) + _SPARE_PARTS
        self.modules = _MODULES_PER_TENSOR * len(weights) + _SPARE_PARTS
        # Count shared memory once.
        memory = {v.untyped_storage().data_ptr(): v.untyped_storage() for v in weights.values()}
        held = sum(storage.nbytes() for storage in memory.values())
        self.bytes = _BYTES_PER_BYTE * held + spare_bytes

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
