"""Tensors by name from checkpoint files, without running anything that a file holds.

safetensors, or `torch.load(weights_only=True)`.
"""

import argparse
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from spanets_runtime.errors import UserError

StateDict = dict[str, Tensor]


class WeightsError(UserError):
    """A file or state dict that does not fit."""


def read_state_dict(path: str | Path) -> StateDict:
    """Reads the tensors of a checkpoint file without running anything it holds.

    Wrappers (`state_dict`, `model`) and prefixes (`module.`, `model.`, `_orig_mod.`) are removed;
    of a detector or segmenter the `backbone.` is taken.

    Args:
        path: .safetensors, .pth, .pth.tar, .pt or .ckpt; the content decides, not the name.

    Returns:
        Tensors by name.

    Raises:
        WeightsError: a missing, truncated or foreign file, or one that holds Python objects.
    """
    tensors = _unwrap(read_checkpoint(path))
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors by name, so it is no checkpoint")
    for key, value in tensors.items():
        dense = value.layout is torch.strided and not value.is_quantized
        if not dense or value.device.type != "cpu":
            raise WeightsError(f"{path}: {key} is no plain tensor")
    return _strip_prefixes(tensors)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint file whole, without running anything it holds.

    Raises:
        WeightsError: a missing, truncated or foreign file, or one that holds Python objects.
    """
    path = Path(path)
    head = _read_head(path)
    try:
        content = load_file(path) if _is_safetensors(head) else _load_torch(path)
    except Exception as error:
        # Both loaders raise a dozen types on damaged input; all mean the same to the user.
        raise WeightsError(f"{path}: {_diagnose(head, error)}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _load_torch(path: Path) -> Any:
    # The released files come from training scripts that stored their arguments and best metric
    # beside the weights. These types hold values alone; NumPy 2 renamed a module of theirs.
    scalar = np.float64(0).__reduce__()[0]
    harmless: list[Any] = [
        argparse.Namespace,
        np.dtype,
        *(type(np.dtype(code)) for code in ("f8", "f4", "f2", "i8", "i4", "?")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
    # An open file: of a path, newer versions of torch would go by its suffix.
    with (
        path.open("rb") as file,
        torch.serialization.safe_globals(harmless),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # what is wrong with a file, its error says
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise WeightsError(f"{path}: is a folder; name a file in it") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise WeightsError(f"{path}: the file is empty")
    return head


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{"  # eight bytes of length, then JSON


def _diagnose(head: bytes, error: Exception) -> str:
    """What is wrong with a file that begins with `head` and could not be loaded."""
    if unsafe := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"holds Python objects ({unsafe[1]}) that could run code, so it is refused; "
            "save its state_dict alone, or as safetensors"
        )
    if head.lstrip()[:1] == b"<":
        return "a web page, not weights; the download gave its page instead of the file"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not weights; fetch the file itself with: git lfs pull"
    if _is_safetensors(head):
        return "a truncated or damaged safetensors file"
    if head.startswith((b"PK", b"\x80")):  # a zip archive, or the pickle of older releases
        return "a truncated or damaged PyTorch file"
    return "neither a PyTorch nor a safetensors file, or damaged at its start"


def _unwrap(content: Mapping[str, Any]) -> StateDict:
    for _ in range(3):  # deeper than any training script; a damaged file may hold itself
        inner = [content.get(wrapper) for wrapper in ("state_dict", "model")]
        content = next((value for value in inner if isinstance(value, Mapping)), content)
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    return {key: value for key, value in named.items() if isinstance(value, Tensor)}


def _strip_prefixes(tensors: StateDict) -> StateDict:
    # DataParallel, a trainer and torch.compile prefix every key, in any order.
    for _ in range(4):
        for prefix in ("module.", "model.", "_orig_mod."):
            if all(key.startswith(prefix) for key in tensors):
                tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    # A detector holds neck and heads beside its backbone.
    backbone = _inside("backbone.", tensors)
    # Our own have the pyramid's network in it (`DenseBackbone`), in torchvision's beside a neck.
    for part in ("body.", "net.", "model."):
        backbone = _inside(part, backbone) or backbone
    return backbone or tensors


def _inside(part: str, tensors: StateDict) -> StateDict:
    return {key.removeprefix(part): v for key, v in tensors.items() if key.startswith(part)}
