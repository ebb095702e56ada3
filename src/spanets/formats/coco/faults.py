"""Reports all faults of a file in one line: each kind once, with its count."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spanets_runtime.errors import UserError

# Largest number of kinds of faults in the message.
MAX_KINDS = 10

# Largest number of characters shown of a value.
MAX_SHOWN = 200

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 8, 4
_SHORT.maxstring = _SHORT.maxother = 160


def show_value(value: object) -> str:
    """Returns a value of a file for a message, escaped and shortened."""
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


class Fault(Exception):
    """An invalid entry of a file.

    Args:
        kind: Name of the kind of fault, for counting.
        problem: Description; continues a sentence that begins with the entry's place.
    """

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem


class Faults:
    """Collects the faults of a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    @contextmanager
    def of(self, where: str) -> Iterator[None]:
        """Records a `Fault` raised in this block; `where` is the entry's place."""
        try:
            yield
        except Fault as fault:
            kind = f"{where.partition('[')[0]}: {fault.kind}"
            self._first.setdefault(kind, f"{where} {fault.problem}")
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def check(self) -> None:
        """Raises a UserError that names every kind of fault, if there are faults."""
        if not self._counts:
            return
        kinds = list(self._first.items())[:MAX_KINDS]
        parts = [f"{first}{_more(self._counts[kind] - 1)}" for kind, first in kinds]
        if len(self._counts) > MAX_KINDS:
            parts.append(f"and {len(self._counts) - MAX_KINDS} more kinds of fault")
        if len(parts) > 1:
            parts.append(f"{sum(self._counts.values())} faults in all")
        raise UserError(f"{self.path}: {'; '.join(parts)}")


def _more(count: int) -> str:
    return f" (and {count} more like it)" if count else ""
