"""Reads files of `torch.save`: archives, and the bare pickles of releases before 1.6."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

import torch

from spanets.weights.archives import open_archive
from spanets.weights.budget import Budget
from spanets.weights.errors import WeightsError
from spanets.weights.makers import StorageType, Stored
from spanets.weights.pickles import read_pickle

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_CHUNK = 2**24


def read_torch(file: BinaryIO, size: int) -> Any:
    """Reads a whole file of `torch.save`, and verifies checksums if it has them.

    Args:
        file: Open file, at its start.
        size: File size, in bytes.

    Raises:
        WeightsError: objects other than tensors and plain values, or too many values.
        Exception: damaged file; the type varies.
    """
    is_archive = file.read(2) == b"PK"
    file.seek(0)
    if is_archive:
        with open_archive(file, size) as archive:
            return _Archive(archive).read(Budget(size))
    return _read_bare(file, size)


# ---- archives


@dataclass
class _Archive:
    """An archive: `NAME/data.pkl` and, for each storage, `NAME/data/KEY`."""

    archive: ZipFile
    parts: dict[str, ZipInfo] = field(default_factory=dict)
    swapped: bool = False
    loaded: dict[str, torch.UntypedStorage] = field(default_factory=dict)

    def read(self, budget: Budget) -> Any:
        """Reads the pickle and the storages that it refers to."""
        whole = {part.filename: part for part in self.archive.infolist()}
        pickles = [name for name in whole if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise BadZipFile("no data.pkl, or several")
        prefix = pickles[0].removesuffix("data.pkl")
        self.parts = {name.removeprefix(prefix): part for name, part in whole.items()}
        if "constants.pkl" in self.parts:
            raise WeightsError(
                "a TorchScript archive, which holds a program, so it is refused; "
                "save its state_dict alone, or as safetensors"
            )
        if "byteorder" in self.parts:
            self.swapped = self._bytes("byteorder") != sys.byteorder.encode()
        return read_pickle(BytesIO(self._bytes("data.pkl")), budget, self.find_stored)

    def find_stored(self, reference: tuple[Any, ...]) -> Stored:
        """Returns the storage for a reference in the pickle."""
        kind, storage_type, key, _, count = reference
        dtype = _check_storage(kind, storage_type, count)
        part = self.parts[f"data/{key}"]
        if part.file_size != count * dtype.itemsize:
            raise BadZipFile(f"data/{key} has another size than declared")
        return Stored(dtype, 0, count, lambda: self._load(part, dtype))

    def _load(self, part: ZipInfo, dtype: torch.dtype) -> torch.UntypedStorage:
        if part.filename not in self.loaded:
            storage = torch.UntypedStorage(part.file_size)
            with self.archive.open(part) as stream:
                _fill(storage, stream.readinto)  # type: ignore[attr-defined]
            if self.swapped:
                storage.byteswap(dtype)
            self.loaded[part.filename] = storage
        return self.loaded[part.filename]

    def _bytes(self, name: str) -> bytes:
        return self.archive.read(self.parts[name])


# ---- bare pickles


def _read_bare(file: BinaryIO, size: int) -> Any:
    budget = Budget(size)
    if read_pickle(file, budget) != _MAGIC_NUMBER or read_pickle(file, budget) != _PROTOCOL:
        raise ValueError("not by torch.save")
    read_pickle(file, budget)  # of the machine that wrote it
    storages = _LateStorages(size)
    content = read_pickle(file, budget, storages.find_stored)
    for key in read_pickle(file, budget):
        storages.fill(key, file)
    if storages.waiting:
        raise ValueError("a storage without values")
    return content


@dataclass
class _LateStorages:
    """Storages whose values follow after the pickle that refers to them.

    Attributes:
        left: Bytes of the file that can still be values.
        made: Storages by their key.
        waiting: Size of each storage without values so far.
    """

    left: int
    made: dict[str, torch.UntypedStorage] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    def find_stored(self, reference: tuple[Any, ...]) -> Stored:
        """Returns the storage for a reference in the pickle; creates it at the first reference."""
        kind, storage_type, key, _, count, view = reference
        dtype = _check_storage(kind, storage_type, count)
        size = count * dtype.itemsize
        if key not in self.made:
            self.left -= size
            if self.left < 0:
                raise ValueError("storages larger than the file")
            self.made[key] = torch.UntypedStorage(size)
            self.waiting[key] = dtype.itemsize
        storage = self.made[key]
        if storage.nbytes() != size:
            raise ValueError("a storage of two sizes")
        start = 0
        if view is not None:
            _, start, length = view
            if not 0 <= start <= start + length <= count:
                raise ValueError("a view beyond its storage")
            count = length
        return Stored(dtype, start, count, lambda: storage)

    def fill(self, key: str, file: BinaryIO) -> None:
        """Reads the number of values of a storage, then the values."""
        storage, item_size = self.made[key], self.waiting.pop(key)
        header = file.read(8)
        if len(header) < 8 or int.from_bytes(header, "little") * item_size != storage.nbytes():
            raise ValueError("a storage of another size than declared")
        _fill(storage, file.readinto)  # type: ignore[attr-defined]


# ---- both


def _check_storage(kind: Any, storage_type: Any, count: Any) -> torch.dtype:
    if kind != "storage" or not isinstance(storage_type, StorageType):
        raise ValueError("a reference to no storage")
    if not isinstance(count, int) or count < 0:
        raise ValueError("a storage of no size")
    return storage_type.dtype


def _fill(storage: torch.UntypedStorage, read_into: Callable[[memoryview], int]) -> None:
    """Reads a storage's bytes in parts, so that memory holds no second copy."""
    if not storage.nbytes():
        return
    values = torch.empty(0, dtype=torch.uint8).set_(storage)
    room = memoryview(values.numpy())  # type: ignore[arg-type]
    while room:
        count = read_into(room[:_CHUNK])
        if not count:
            raise ValueError("the file ends within a storage")
        room = room[count:]
