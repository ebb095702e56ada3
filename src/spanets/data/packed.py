"""Long lists of strings and paths in two arrays, without one Python object per item."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

_BATCH = 2**16
"""Items that are copied at once."""


class PackedTexts(Sequence[str]):
    """A list of strings in two arrays.

    Worker processes share the memory of their parent until one of them writes to it. Python writes
    to an object whenever it uses it, to count references, so every worker would end up with its own
    copy of a list of a million names. Arrays are not copied.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        content, lengths, rest = bytearray(), [np.zeros(1, np.int64)], iter(texts)
        while encoded := [t.encode("utf-8", "surrogateescape") for t in islice(rest, _BATCH)]:
            content += b"".join(encoded)
            lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._ends = np.cumsum(np.concatenate(lengths))
        self._bytes = np.frombuffer(bytes(content), np.uint8)

    def take(self, indices: Sequence[int]) -> "PackedTexts":
        """Returns the texts at `indices`, in that order."""
        chosen, taken = np.asarray(indices, np.int64), PackedTexts(())
        starts = self._ends[:-1][chosen]
        lengths = self._ends[1:][chosen] - starts
        taken._ends = np.concatenate([taken._ends, np.cumsum(lengths)])
        taken._bytes = np.empty(taken._ends[-1], np.uint8)
        for first in range(0, len(chosen), _BATCH):
            batch = slice(first, first + _BATCH)
            ends = taken._ends[first : first + len(chosen[batch]) + 1]
            # The place of each byte here, moved to its place there.
            shift = np.repeat(starts[batch] - ends[:-1], lengths[batch])
            taken._bytes[ends[0] : ends[-1]] = self._bytes[np.arange(ends[0], ends[-1]) + shift]
        return taken

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        content, start = self._bytes.tobytes(), 0
        for end in self._ends[1:].tolist():
            yield content[start:end].decode("utf-8", "surrogateescape")
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedTexts):
            return NotImplemented
        same_ends = np.array_equal(self._ends, other._ends)
        return same_ends and np.array_equal(self._bytes, other._bytes)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        first, last = self._ends[range(len(self))[index] + np.arange(2)]
        return self._bytes[first:last].tobytes().decode("utf-8", "surrogateescape")


class PackedPaths(Sequence[Path]):
    """Paths of files below one folder.

    Args:
        folder: The folder.
        names: The paths below it, with forward slashes.
    """

    def __init__(self, folder: Path, names: PackedTexts) -> None:
        self.folder = folder
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self.folder / name for name in self.names[index]]
        return self.folder / self.names[index]

    def take(self, indices: Sequence[int]) -> "PackedPaths":
        """Returns the paths at `indices`, in that order."""
        return PackedPaths(self.folder, self.names.take(indices))
