"""Reads named tensors from checkpoint files, without running code from the file."""

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import safe_open
from torch import Tensor

from spanets.weights.errors import WeightsError
from spanets.weights.shards import FOLDER_FILES, is_index, read_shards
from spanets.weights.torchfiles import read_torch

StateDict = dict[str, Tensor]

# Limit for the list of a safetensors file's tensors, some 120 bytes each.
_MAX_HEADER = 16 * 2**20
_MAX_TENSORS = 100_000


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a whole checkpoint file, without running code from it.

    For a sharded checkpoint, give the index or the folder.

    Raises:
        WeightsError: missing, truncated or foreign file, or one that holds Python objects or
            declares more data than it has.
    """
    path = find_file(Path(path))
    with open_regular(path) as file:
        return read_open(file, path)


def read_open(file: BinaryIO, path: Path) -> dict[str, Any]:
    """Reads an open file as `read_checkpoint` does.

    Args:
        file: Open file, at its start.
        path: Path of the file, for messages and for finding shards.

    Raises:
        WeightsError: see `read_checkpoint`.
    """
    content = _read_any(file, path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading; refuses pipes and devices, which may never end.

    Raises:
        WeightsError: no such file, unreadable, or not a regular file.
    """
    # Without O_NONBLOCK, opening a pipe without a writer would block.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise WeightsError(f"{path}: no such file, its name holds a NUL character") from None
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise WeightsError(f"{path}: is a pipe or device, must be a regular file")
    return file


def find_file(path: Path) -> Path:
    """Returns the weights file in a folder; returns other paths unchanged."""
    try:
        if not path.is_dir():
            return path
        held = [path / name for name in FOLDER_FILES if os.path.exists(path / name)]
    except (OSError, ValueError):  # opening it will report the reason
        return path
    if not held:
        raise WeightsError(f"{path}: is a folder; name a file in it")
    return held[0]


def _read_any(file: BinaryIO, path: Path) -> Any:
    head, size = file.read(64), os.fstat(file.fileno()).st_size
    file.seek(0)
    if not head:
        raise WeightsError(f"{path}: the file is empty")
    if is_index(head):
        return read_shards(path, _read_shard)
    try:
        if _is_safetensors(head):
            return _read_safetensors(path, size)
        return read_torch(file, size)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    # Readers raise many types for damaged files; for the user all mean the same.
    except Exception as error:
        raise WeightsError(f"{path}: {_diagnose(head)}") from error


def _read_shard(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        if is_index(file.read(64)):
            raise WeightsError(f"{path}: is an index, listed by another")
        file.seek(0)
        return read_open(file, path)


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{"  # eight bytes of length, then JSON


def _read_safetensors(path: Path, size: int) -> StateDict:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise ValueError("the list of tensors is longer than the file")
    if length > _MAX_HEADER:
        raise WeightsError("its list of tensors is too long for weights")
    with safe_open(path, framework="pt", device="cpu") as tensors:
        names = list(tensors.keys())
        if len(names) > _MAX_TENSORS:
            raise WeightsError(f"holds more than {_MAX_TENSORS:,} tensors, too many for weights")
        return {name: tensors.get_tensor(name) for name in names}


def _diagnose(head: bytes) -> str:
    """Describes an unreadable file by its first bytes."""
    if head.lstrip()[:1] == b"<":
        return "a web page, not weights; the download gave its page instead of the file"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not weights; fetch the file itself with: git lfs pull"
    if _is_safetensors(head):
        return "a truncated or damaged safetensors file"
    if head.startswith((b"PK", b"\x80")):  # an archive, or the pickle of older releases
        return "a truncated or damaged PyTorch file"
    return "neither a PyTorch nor a safetensors file, or damaged at its start"
