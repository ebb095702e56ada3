"""Safe constructors of tensors and plain values, for the names in a weights file.

The file alone cannot decide what they call, import or allocate; see `pickles`.
"""

from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spanets.weights.budget import Budget
from spanets.weights.errors import WeightsError, show_name

_MAX_DIMENSIONS = 64
_TUPLE_KEY_COST = 100  # in values: unlike texts, tuples can be made to collide in a dictionary


class NotPlain:
    """Placeholder for an unsupported tensor: sparse, quantized, without values, or a subclass."""


@dataclass(frozen=True)
class Stored:
    """Storage that tensors are views of.

    Attributes:
        dtype: dtype of the values.
        start: Offset into the memory, in values.
        count: Number of values.
        memory: Function that loads the values.
    """

    dtype: torch.dtype
    start: int
    count: int
    memory: Callable[[], torch.UntypedStorage]


@dataclass(frozen=True)
class StorageType:
    """Type of stored values; without one they are bytes."""

    dtype: torch.dtype


@dataclass
class NumpyType:
    """A NumPy dtype, such as "f8"."""

    code: str
    order: str = "<"


@dataclass(frozen=True)
class Maker:
    """Constructor for a name in the file; takes the budget and the file's arguments."""

    make: Callable[..., Any]


@dataclass(frozen=True)
class _ClassName:
    """The name of a class of tensors, which a file may mention as an argument."""

    name: str


def require(value: Any, kind: Any) -> Any:
    """Returns a value after checking its type.

    Raises:
        TypeError: the value has another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} is not expected here")
    return value


def check_key(key: Any, budget: Budget) -> Any:
    """Returns a dictionary key after checking that its lookup is fast.

    Hashing nested tuples is not cached, and its cost can double with every level. Large integers
    and tuples can be chosen to collide.
    """
    if isinstance(key, tuple):
        budget.spend_values(_TUPLE_KEY_COST + len(key))
        parts = key
    else:
        parts = (key,)
    for part in parts:
        if isinstance(part, int):
            if not -(2**63) <= part < 2**63:
                raise ValueError("an integer of more than 64 bits as a key")
        elif part is not None:
            require(part, str | bytes | float | torch.dtype)
    return key


def look_up(module: str, name: str) -> Any:
    """Returns the safe constructor or value for a name in the file.

    Raises:
        WeightsError: an unknown name, which could run code.
    """
    module = _RENAMED.get(module, module)
    # Not getattr, which makes torch import some of its modules.
    found = vars(torch).get(name) if module == "torch" else None
    if isinstance(found, torch.dtype | torch.qscheme):
        return found
    if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGE_TYPES:
        return StorageType(_STORAGE_TYPES[name])
    full_name = f"{module}.{name}"
    if full_name in _CLASS_NAMES:
        return _ClassName(full_name)
    if full_name in _MAKERS:
        return _MAKERS[full_name]
    raise WeightsError(
        f"holds Python objects ({show_name(full_name)}) that could run code, so it is refused; "
        "save its state_dict alone, or as safetensors"
    )


# Pickles still use Python 2's name, and NumPy 2 renamed a module.
_RENAMED = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}

_STORAGE_TYPES = {
    "UntypedStorage": torch.uint8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt2x4Storage": torch.quint2x4,
}

_CLASS_NAMES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter")


def _make_tensor(
    budget: Budget, stored: Any, offset: Any, size: Any, stride: Any, *more: Any
) -> Tensor | NotPlain:
    """Makes a view of stored values; an extra argument in `more` asks for conjugation."""
    if more[2:3] not in ((), (None,), ({},)):
        return NotPlain()
    return _view(budget, require(stored, Stored), offset, size, stride)


def _make_typed_tensor(
    budget: Budget, stored: Any, offset: Any, size: Any, stride: Any, *more: Any
) -> Tensor | NotPlain:
    """Makes a tensor of a dtype without its own storage type, such as float8, given in `more`."""
    stored, dtype = require(stored, Stored), require(more[2], torch.dtype)
    count = stored.count * stored.dtype.itemsize // dtype.itemsize
    typed = Stored(dtype, 0, count, stored.memory)
    if stored.start or more[3:4] not in ((), (None,), ({},)):
        return NotPlain()
    return _view(budget, typed, offset, size, stride)


def _view(budget: Budget, stored: Stored, offset: Any, size: Any, stride: Any) -> Tensor:
    numbers = (offset, *require(size, tuple), *require(stride, tuple))
    if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
        raise ValueError("a tensor's shape does not fit its strides")
    if any(require(number, int) < 0 for number in numbers):
        raise ValueError("a tensor of negative size")
    count = prod(size)
    last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset > stored.count or (count and offset + last >= stored.count):
        raise ValueError("a tensor reaches beyond its storage")
    budget.spend_bytes(count * stored.dtype.itemsize)
    tensor = torch.empty(0, dtype=stored.dtype)
    return tensor.set_(stored.memory(), stored.start + offset, size, stride)


def _make_parameter(budget: Budget, tensor: Any, *more: Any) -> Tensor | NotPlain:
    found: Tensor | NotPlain = require(tensor, Tensor | NotPlain)
    return found


def _make_of_class(
    budget: Budget, maker: Any, kind: Any, arguments: Any, state: Any
) -> Tensor | NotPlain:
    require(kind, _ClassName)
    made = require(maker, Maker).make(budget, *require(arguments, tuple))
    return _make_parameter(budget, made)


def _make_nothing(budget: Budget, *arguments: Any) -> NotPlain:
    return NotPlain()


def _make_ordered(budget: Budget, pairs: Any = ()) -> OrderedDict[Any, Any]:
    budget.spend_values(len(require(pairs, list | tuple)))
    return OrderedDict((check_key(key, budget), value) for key, value in pairs)


def _make_counter(budget: Budget, counts: Any = None) -> Counter[Any]:
    budget.spend_values(len(require(counts or {}, dict)))
    return Counter(counts)


def _make_set(budget: Budget, items: Any = ()) -> set[Any]:
    budget.spend_values(len(require(items, list | tuple)))
    return {check_key(item, budget) for item in items}


def _make_bytes(budget: Budget, text: Any = b"", encoding: Any = "latin1") -> bytes:
    budget.spend_bytes(len(require(text, str | bytes)))
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding")
    return text if isinstance(text, bytes) else text.encode("latin1")


def _make_complex(budget: Budget, real: Any, imaginary: Any) -> complex:
    return complex(require(real, float), require(imaginary, float))


def _make_size(budget: Budget, sides: Any = ()) -> torch.Size:
    budget.spend_values(len(require(sides, tuple)))
    return torch.Size(require(side, int) for side in sides)


def _make_device(budget: Budget, kind: Any, index: Any = None) -> torch.device:
    name = require(kind, str)
    return torch.device(name if index is None else f"{name}:{require(index, int)}")


def _make_layout(budget: Budget, name: Any) -> str:
    layout: str = require(name, str)
    return layout


def _make_numpy_type(budget: Budget, code: Any, *more: Any) -> NumpyType:
    if code not in _NUMPY_CODES:
        raise WeightsError(f"holds numbers of NumPy's type {show_name(str(code))}, not supported")
    return NumpyType(code)


_NUMPY_CODES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def _make_number(budget: Budget, kind: Any, data: Any) -> Any:
    kind = require(kind, NumpyType)
    return np.frombuffer(require(data, bytes), np.dtype(f"{kind.order}{kind.code}"), count=1)[0]


def _make_namespace(budget: Budget) -> Namespace:
    return Namespace()


_MAKERS: dict[str, Maker] = {
    "torch._utils._rebuild_tensor": Maker(_make_tensor),
    "torch._utils._rebuild_tensor_v2": Maker(_make_tensor),
    "torch._utils._rebuild_tensor_v3": Maker(_make_typed_tensor),
    "torch._utils._rebuild_parameter": Maker(_make_parameter),
    "torch._utils._rebuild_parameter_with_state": Maker(_make_parameter),
    "torch._tensor._rebuild_from_type_v2": Maker(_make_of_class),
    "torch._utils._rebuild_sparse_tensor": Maker(_make_nothing),
    "torch._utils._rebuild_qtensor": Maker(_make_nothing),
    "torch._utils._rebuild_meta_tensor_no_storage": Maker(_make_nothing),
    "torch._utils._rebuild_wrapper_subclass": Maker(_make_nothing),
    "torch.Size": Maker(_make_size),
    "torch.device": Maker(_make_device),
    "torch.serialization._get_layout": Maker(_make_layout),
    "collections.OrderedDict": Maker(_make_ordered),
    "collections.Counter": Maker(_make_counter),
    "builtins.set": Maker(_make_set),
    "builtins.bytearray": Maker(_make_bytes),
    "builtins.complex": Maker(_make_complex),
    "_codecs.encode": Maker(_make_bytes),
    "numpy.dtype": Maker(_make_numpy_type),
    "numpy.core.multiarray.scalar": Maker(_make_number),
    "argparse.Namespace": Maker(_make_namespace),
}
