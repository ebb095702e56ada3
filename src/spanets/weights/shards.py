"""Reads sharded weights: several files and an index, as the Hugging Face libraries write them.

The index is JSON: `{"weight_map": {key: file name}}`. Its files must be in its own folder.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spanets.weights.errors import WeightsError, show_name

# Weights files in a folder, by priority.
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_MAX_INDEX = 16 * 2**20
_MAX_SHARDS = 10_000


def is_index(head: bytes) -> bool:
    """Whether a file that starts with these bytes is JSON; safetensors starts with a length."""
    return head.lstrip()[:1] == b"{" and b"\x00" not in head[:8]


def read_shards(index: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Reads the files that an index lists.

    Args:
        index: Path of the JSON index.
        read: Function that reads one file; its errors name the file.

    Returns:
        Tensors of all files by name.

    Raises:
        WeightsError: damaged index, an index that names files in other folders, or a file that is
            missing or lacks listed tensors.
    """
    places = _read_places(index)
    found: dict[str, Any] = {}
    for shard in dict.fromkeys(places.values()):
        content = read(_locate(index, shard))
        found |= {key: value for key, value in content.items() if places.get(key, shard) == shard}
    if absent := [key for key in places if key not in found]:
        raise WeightsError(
            f"{index}: lists {len(absent)} tensors that its files do not hold, such as "
            f"{show_name(absent[0])} in {show_name(places[absent[0]])}"
        )
    return found


def _read_places(index: Path) -> dict[str, str]:
    try:
        with index.open("rb") as file:
            text = file.read(_MAX_INDEX + 1)
        content = json.loads(text) if len(text) <= _MAX_INDEX else None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{index}: damaged JSON, which lists no files of weights") from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise WeightsError(f'{index}: JSON without a "weight_map", so it lists no files of weights')
    if not all(isinstance(shard, str) for shard in places.values()):
        raise WeightsError(f'{index}: its "weight_map" must map names to file names')
    if len(set(places.values())) > _MAX_SHARDS:
        raise WeightsError(f"{index}: lists more than {_MAX_SHARDS:,} files")
    return places


def _locate(index: Path, shard: str) -> Path:
    """Returns the path of a file in the folder of the index.

    A link must end in the index's own folder or in the folder that the index itself links to: in
    Hugging Face's cache, all files are links into one folder of blobs.
    """
    path = index.parent / shard
    is_plain = shard not in ("", ".", "..") and not set(shard) & set("/\\:\0")
    if not is_plain:
        raise WeightsError(f"{index}: names {show_name(shard)}, must be files in its own folder")
    if not os.path.exists(path):
        raise WeightsError(f"{index}: lists {show_name(shard)}, which is missing; put it beside it")
    if path.resolve().parent not in (index.parent.resolve(), index.resolve().parent):
        raise WeightsError(f"{index}: names {show_name(shard)}, a link that leaves its folder")
    return path
