"""Reads the pickle in a PyTorch file as plain values, without calling functions that it names.

The file's opcodes drive a small stack machine. Names are looked up in a table of this package's own
constructors (`makers`), so nothing is imported, and a budget limits what they create. PyTorch has a
similar reader (`torch.load(weights_only=True)`), but a file of 100 bytes can make it allocate any
amount of memory, and its list of allowed names is shared by all threads.
"""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pickletools import genops
from typing import Any, BinaryIO

from spanets.weights.budget import Budget
from spanets.weights.makers import Maker, NumpyType, Stored, check_key, look_up, require


def read_pickle(
    stream: BinaryIO, budget: Budget, find_stored: Callable[[Any], Stored] | None = None
) -> Any:
    """Reads one pickle.

    Args:
        stream: File at the pickle's start; afterwards it is behind the pickle's end.
        budget: Remaining budget of the file.
        find_stored: Finds the storage for a reference in the pickle.

    Returns:
        Numbers, texts, lists, dictionaries, tensors, and `NotPlain` for unsupported tensors.

    Raises:
        WeightsError: other objects, or too many values.
        Exception: damaged pickle; the type varies.
    """
    machine = _Machine(budget, find_stored)
    for opcode, argument, _ in genops(stream):
        budget.spend_values()
        if opcode.name == "STOP":
            break
        machine.step(opcode.name, argument)
    return machine.stack.pop()


@dataclass
class _Machine:
    """The stack machine that runs pickles, limited to the opcodes that weights files use.

    Attributes:
        stack: Values that are not yet used.
        marked: Stacks saved at each mark.
        memo: Values by number, for reuse.
    """

    budget: Budget
    find_stored: Callable[[Any], Stored] | None
    stack: list[Any] = field(default_factory=list)
    marked: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, opcode: str, argument: Any) -> None:
        """Executes one opcode."""
        if opcode in _IGNORED:
            return
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            values = [self.stack.pop() for _ in range(_TUPLES[opcode])]
            self.stack.append(tuple(reversed(values)))
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        else:
            raise ValueError(f"opcode {opcode}")

    def pop_marked(self) -> list[Any]:
        """Returns the values since the last mark."""
        values, self.stack = self.stack, self.marked.pop()
        return values

    # ---- opcodes, with their argument

    def _mark(self, _: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _tuple(self, _: None) -> None:
        values = self.pop_marked()
        self.stack.append(tuple(values))

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _append(self, _: None) -> None:
        value = self.stack.pop()
        require(self.stack[-1], list).append(value)

    def _extend(self, _: None) -> None:
        values = self.pop_marked()
        require(self.stack[-1], list).extend(values)

    def _set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        require(self.stack[-1], dict)[check_key(key, self.budget)] = value

    def _set_items(self, _: None) -> None:
        values = self.pop_marked()
        target = require(self.stack[-1], dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[check_key(key, self.budget)] = value

    def _add_items(self, _: None) -> None:
        values = self.pop_marked()
        require(self.stack[-1], set).update(check_key(value, self.budget) for value in values)

    def _global(self, words: str) -> None:
        module, _, name = words.partition(" ")
        self.stack.append(look_up(module, name))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(look_up(require(module, str), require(name, str)))

    def _reduce(self, _: None) -> None:
        arguments = require(self.stack.pop(), tuple)
        maker = require(self.stack.pop(), Maker)
        self.stack.append(maker.make(self.budget, *arguments))

    def _build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, NumpyType):
            target.order = {">": ">"}.get(require(state, tuple)[1], "<")
        elif isinstance(target, Namespace):
            self.budget.spend_values(len(require(state, dict)))
            vars(target).update({require(key, str): value for key, value in state.items()})
        else:
            # The state of a state dict holds the versions of its modules. It is ignored, because
            # its attributes could replace the dictionary's own methods.
            require(target, OrderedDict)

    def _persistent(self, _: None) -> None:
        reference = require(self.stack.pop(), tuple)
        if self.find_stored is None:
            raise ValueError("a storage where none can be")
        self.stack.append(self.find_stored(reference))


_IGNORED = ("PROTO", "FRAME")
_LITERALS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES"),
    }
)
_EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "TUPLE": _Machine._tuple,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._extend,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "ADDITEMS": _Machine._add_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
