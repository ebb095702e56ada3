"""Writes shards from class folders: `spanets shard`.

    out/train-000000.tar                 images and labels, in WebDataset's layout
    out/train-000000.tar.index.json      where each image is, see `ShardIndex`
    out/dataset.json                     parts, classes, counts, shards; written last

Shards depend on the folder, the size and the seed alone, and hold no times or owners. Writing them
again gives the same bytes. Images are shuffled over the shards, so that each shard holds all
classes. The index keeps the position of each image in the folder's order, so that a run on the
shards draws images in the same order as a run on the folder.
"""

import io
import json
import os
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from spanets.data.samples import Samples
from spanets.data.sources.folder import folder_parts
from spanets.data.sources.shard_index import MAX_IMAGE_BYTES, SUFFIX, ShardIndex, parse_index
from spanets.data.sources.shard_names import DATASET, FORMAT
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import is_aside, write_atomically
from spanets_runtime.progress import progress


@dataclass(frozen=True)
class _Plan:
    """The content of a shard to write: positions in its part's samples, and file sizes in bytes."""

    path: Path
    positions: list[int]
    sizes: list[int]


def write_shards(root: str | Path, out: str | Path, size: int, seed: int = 0) -> dict[str, Any]:
    """Writes shards from class folders, by part; continues if it was interrupted before.

    Args:
        root: See `folder_splits`.
        out: A folder that is empty, missing, or left by an interrupted call.
        size: Approximate size of a shard in bytes; a shard has at least one image.
        seed: Seed of the order in which images fill the shards.

    Returns:
        The content of dataset.json, and "notes": messages about files that were left out.

    Raises:
        UsageError: `out` holds finished shards or other files, or lies in `root`.
        UserError: a folder or file cannot be used, or the disk is full.
    """
    root, out = Path(os.path.expanduser(root)), Path(os.path.expanduser(out))
    parts = folder_parts(root)
    plans = {name: _plan(part, out, name, size, seed) for name, part in parts.items()}
    _check_out(root, out, {plan.path.name for some in plans.values() for plan in some})
    contents: dict[str, Any] = {"format": FORMAT, "classes": parts["train"].classes, "parts": {}}
    total = sum(sum(plan.sizes) for some in plans.values() for plan in some)
    with progress(None, "shard", total=total, unit="B") as bar:
        for name, part in parts.items():
            rows = [_write_shard(plan, part, root, bar) for plan in plans[name]]
            contents["parts"][name] = {"images": len(part), "counts": part.counts(), "shards": rows}
    text = json.dumps(contents, indent=2) + "\n"  # ASCII: names may not be valid UTF-8
    write_atomically(out / DATASET, lambda file: file.write(text.encode()))
    notes = dict.fromkeys(note for part in parts.values() for note in part.notes)
    return {**contents, "notes": list(notes)}


def _plan(samples: Samples, out: Path, part: str, size: int, seed: int) -> list[_Plan]:
    """Assigns images to shards, filling each up to its size."""
    plans: list[_Plan] = []
    paths = _files(samples)
    room = 0
    for position in np.random.default_rng(seed).permutation(len(samples)).tolist():
        length = _file_size(paths[position])
        needed = length + 3 * tarfile.BLOCKSIZE  # two headers and the label
        if needed > room or not plans:
            plans.append(_Plan(out / f"{part}-{len(plans):06}.tar", [], []))
            room = size
        plans[-1].positions.append(position)
        plans[-1].sizes.append(length)
        room -= needed
    return plans


def _files(samples: Samples) -> list[Path]:
    return [path for path in samples.images if isinstance(path, Path)]  # in class folders, all


def _file_size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if size > MAX_IMAGE_BYTES:
        raise UserError(f"{path}: {size} bytes are over the limit of {MAX_IMAGE_BYTES}")
    return size


def _check_out(root: Path, out: Path, ours: set[str]) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"--out {out}: lies in the folder of the images; choose another")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a folder")
    if (out / DATASET).exists():
        raise UsageError(f"--out {out}: holds shards already; choose another, or remove it")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    left = ours | {name + SUFFIX for name in ours}
    if other := sorted(name for name in names - left if not is_aside(name)):
        raise UsageError(f"--out {out}: holds other files, such as {other[0]}; choose another")


def _write_shard(plan: _Plan, samples: Samples, root: Path, bar: Any) -> dict[str, Any]:
    """Writes a shard and its index, unless they exist; returns the shard's row of dataset.json."""
    paths = _files(samples)
    names = [str(paths[i].relative_to(root)) for i in plan.positions]
    labels = [samples.labels[i] for i in plan.positions]
    beside = plan.path.with_name(plan.path.name + SUFFIX)
    index = _read_written(plan, names, labels)
    if index is None:
        offsets: list[int] = []
        checksums: list[int] = []

        def write(file: BinaryIO) -> None:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for number, position in enumerate(plan.positions):
                    path = paths[position]
                    content = _read(path, plan.sizes[number])
                    offsets.append(tar.offset + tarfile.BLOCKSIZE)  # after the header
                    checksums.append(zlib.crc32(content))
                    _add(tar, f"{number:09}{path.suffix.lower()}", content)
                    _add(tar, f"{number:09}.cls", str(labels[number]).encode())
                    bar.update(len(content))

        write_atomically(plan.path, write)
        size = plan.path.stat().st_size
        index = ShardIndex(
            size, names, offsets, plan.sizes, labels, None, checksums, plan.positions
        )
        content = index.to_json()
        write_atomically(beside, lambda file: file.write(content))
    return {"name": plan.path.name, "images": len(names), "bytes": index.length}


def _read_written(plan: _Plan, names: list[str], labels: list[int]) -> ShardIndex | None:
    """Returns the index of a shard that an interrupted call wrote, if it matches the plan."""
    with suppress(OSError, UserError):
        beside = plan.path.with_name(plan.path.name + SUFFIX)
        index = parse_index(beside.read_bytes(), str(beside))
        found = (index.length, index.names, index.labels, index.sizes, index.positions)
        if found == (plan.path.stat().st_size, names, labels, plan.sizes, plan.positions):
            return index
    return None


def _read(path: Path, size: int) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) != size:
        raise UserError(f"{path}: changed while it was read; start again")
    return content


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
