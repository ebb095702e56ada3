"""Shards: tar files of images in WebDataset's layout, here or elsewhere, drawn from like a folder.

What `spanets shard` wrote is a folder with a `dataset.json`, which names parts, classes and shards.
Other people's shards are named by a pattern; their parts are told from the names, train-0000.tar
or train/0000.tar, and are one set to be split where no name says so:

    shards                              https://host/shards
    photos-{train,val}-*.tar            s3://bucket/photos-{train,val}-{0000..0063}.tar

WebDataset's own pipeline reads shards as streams and shuffles in a buffer: what an epoch holds then
depends on the number of processes, and it cannot begin in the middle. Here every image has a number
and a place, so that `EpochSampler` draws each once an epoch, whoever reads it.
"""

import glob
import json
import os
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from tqdm import tqdm

from spanets.data.samples import Samples
from spanets.data.sources import remote
from spanets.data.sources.packed import PackedTexts
from spanets.data.sources.shard_index import SUFFIX, ShardIndex, list_tar, parse_index
from spanets_runtime.errors import UserError, require
from spanets_runtime.files import write_atomically
from spanets_runtime.images import ImageError

DATASET = "dataset.json"
FORMAT = 1

_PART = re.compile(r"(?:^|[^a-z])(train|val|valid|validation|test)(?:[^a-z]|$)")
_READERS = 16  # of indices; they wait for the network, mostly
_MAX_CLASSES = 2**20


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Attributes:
        location: Path or URL.
        length: In bytes.
        cache: The folder for its copy, if it is a URL.
    """

    location: str
    length: int
    cache: Path

    def local(self) -> Path:
        """Returns a path to read it from; fetches it if it is elsewhere."""
        if remote.is_url(self.location):
            return remote.fetch(self.location, self.cache, self.length)
        return Path(self.location)


@dataclass(frozen=True)
class ShardImage:
    """One image of a shard; see `ShardIndex`.

    Attributes:
        names, number: Where its name stands, which is looked up for a message alone.
    """

    shard: Shard
    names: Sequence[str]
    number: int
    offset: int
    size: int
    checksum: int | None

    def read(self) -> bytes:
        """Returns its encoded bytes.

        Raises:
            ImageError: they are not those that the index tells of.
            UserError: the shard cannot be fetched or read.
        """
        path = self.shard.local()
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if len(content) < self.size:
            raise ImageError(f"{self}: the shard ends before it")
        if self.checksum is not None and zlib.crc32(content) != self.checksum:
            raise ImageError(f"{self}: its bytes are not those that the shard was written with")
        return content

    def __str__(self) -> str:
        return f"{self.shard.location}: {self.names[self.number]}"


class ShardImages(Sequence[ShardImage]):
    """All images of several shards, as arrays; see `PackedTexts` for the reason.

    Args:
        shards: The tar files.
        indices: What they hold.
        order: Of all images, as numbers in that of the files.
    """

    def __init__(
        self, shards: Sequence[Shard], indices: Sequence[ShardIndex], order: np.ndarray
    ) -> None:
        self.shards = list(shards)
        counts = [len(index.names) for index in indices]
        self.numbers = np.repeat(np.arange(len(shards), dtype=np.int32), counts)[order]
        self._offsets = _column(indices, "offsets", np.int64)[order]
        self._sizes = _column(indices, "sizes", np.int64)[order]
        checked = all(index.checksums is not None for index in indices)
        self._checksums = _column(indices, "checksums", np.int64)[order] if checked else None
        names = [name for index in indices for name in index.names]
        self._names = PackedTexts(names[i] for i in order)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> ShardImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[ShardImage]: ...
    def __getitem__(self, index: int | slice) -> ShardImage | list[ShardImage]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return ShardImage(
            self.shards[self.numbers[index]],
            self._names,
            index,
            int(self._offsets[index]),
            int(self._sizes[index]),
            None if self._checksums is None else int(self._checksums[index]),
        )


def _column(indices: Sequence[ShardIndex], name: str, kind: Any) -> np.ndarray:
    return np.concatenate([np.array(getattr(index, name), kind) for index in indices])


def _order(indices: Sequence[ShardIndex]) -> np.ndarray:
    """Returns the order in which the data set was listed, or that of the files."""
    count = sum(len(index.names) for index in indices)
    if all(index.positions is not None for index in indices):
        positions = _column(indices, "positions", np.int64)
        if np.array_equal(np.sort(positions), np.arange(count)):
            return np.argsort(positions)
    return np.arange(count)


def read_shards(
    root: str, label_key: str | None = None, cache: str | None = None
) -> dict[str, Samples]:
    """Lists the images of shards by part: "train", perhaps "val", perhaps "test".

    Indices are read from beside the shards, and made where there are none.

    Args:
        root: A folder or URL with a `dataset.json`, or a pattern of shards.
        label_key: See `list_tar`.
        cache: The folder for copies of what is elsewhere; None takes `default_cache()`.

    Raises:
        UserError: no shards, shards that cannot be read, or labels that are no classes.
    """
    folder = remote.default_cache() if cache is None else Path(cache).expanduser()
    parts, classes = _find_parts(os.path.expanduser(root))
    found = {name: _open_part(shards, folder, label_key) for name, shards in parts.items()}
    classes = classes or _find_classes(found["train"][1])
    return {name: _make_samples(*found[name], classes) for name in parts}


def _find_parts(root: str) -> tuple[dict[str, list[str]], list[str] | None]:
    """Returns the shards of each part, and the classes if they are named."""
    described = _read_description(root)
    if described is not None:
        return described
    shards = _expand(os.path.join(root, "**/*.tar") if os.path.isdir(root) else root)
    if not shards:
        raise UserError(f"{root}: no such shards; name a folder or a pattern, such as train-*.tar")
    parts: dict[str | None, list[str]] = {}
    for location in shards:
        parts.setdefault(_part_of(location), []).append(location)
    if parts.keys() == {None}:
        return {"train": shards}, None
    if None in parts:
        raise UserError(f"{parts[None][0]}: tells no part in its name, train or val, others do")
    if "train" not in parts:
        raise UserError(f"{root}: shards of {' and '.join(map(str, parts))}, none to train on")
    return {str(part): found for part, found in parts.items()}, None


def _read_description(root: str) -> tuple[dict[str, list[str]], list[str]] | None:
    """Reads a `dataset.json`, if there is one."""
    if remote.is_url(root):
        where = root.rstrip("/")
        content = None if where.endswith(".tar") else remote.read_small(f"{where}/{DATASET}")
    else:
        where = os.path.abspath(root)
        path = Path(where, DATASET)
        content = path.read_bytes() if path.is_file() else None
    if content is None:
        return None
    try:
        values = json.loads(content)
        if values["format"] != FORMAT or "train" not in values["parts"]:
            raise ValueError("written by another version")
        classes = [str(name) for name in values["classes"]]
        parts = {
            # Names alone: a description cannot point elsewhere.
            str(part): [f"{where}/{os.path.basename(row['name'])}" for row in told["shards"]]
            for part, told in values["parts"].items()
        }
    # Whatever a file that is none of ours leads to.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}/{DATASET}: damaged ({error})") from None
    return parts, classes


def _expand(root: str) -> list[str]:
    """Returns the files that a pattern stands for, each once, in order."""
    braces = require("braceexpand", "train")
    try:
        patterns = list(braces.braceexpand(root))
    except ValueError as error:
        raise UserError(f"{root}: {error}") from None
    found: list[str] = []
    for pattern in patterns:
        if remote.is_url(pattern):
            found += remote.expand(pattern)
        elif set(pattern) & set("*?["):
            found += sorted(glob.glob(pattern, recursive=True))
        else:
            found.append(pattern)
    return list(dict.fromkeys(found))


def _part_of(location: str) -> str | None:
    """Tells the part from the name of a shard, or else from its folder's."""
    *_, folder, name = ["", *location.lower().split("/")]
    found = _PART.search(name) or _PART.fullmatch(folder)
    if found is None:
        return None
    return "val" if found[1].startswith("val") else found[1]


def _open_part(
    locations: list[str], cache: Path, label_key: str | None
) -> tuple[list[Shard], list[ShardIndex]]:
    def read(location: str) -> ShardIndex:
        return read_index(location, cache, label_key)

    with ThreadPoolExecutor(_READERS) as pool:
        watched = tqdm(locations, desc="shards", disable=None, leave=False)
        indices = list(pool.map(read, watched))
    pairs = zip(locations, indices, strict=True)
    return [Shard(location, index.length, cache) for location, index in pairs], indices


def read_index(location: str, cache: Path, label_key: str | None = None) -> ShardIndex:
    """Reads what stands beside a shard, or lists the shard and leaves that beside it.

    Raises:
        UserError: the shard cannot be read, or is not what its index tells of.
    """
    path = Path(location)
    if remote.is_url(location):
        content = remote.read_small(remote.beside(location, SUFFIX))
        if content is not None:
            index = parse_index(content, location + SUFFIX)
            if label_key in (None, index.label_key):
                return index
        path = remote.fetch(location, cache)
    return _index_here(path, label_key)


def _index_here(path: Path, label_key: str | None) -> ShardIndex:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    beside = path.with_name(path.name + SUFFIX)
    if beside.is_file():
        index = parse_index(beside.read_bytes(), str(beside))
        if index.length == size and label_key in (None, index.label_key):
            return index
        if index.checksums is not None and index.length != size:  # written with the shard
            raise UserError(
                f"{path}: has {size} bytes, its index says {index.length}; copy it again"
            )
    index = list_tar(path, label_key)
    with suppress(UserError):  # a folder that cannot be written costs time alone
        write_atomically(beside, lambda file: file.write(index.to_json()))
    return index


def _find_classes(indices: Sequence[ShardIndex]) -> list[str]:
    """Returns the class names that labels tell: themselves, or numbers up to the largest."""
    labels = {label for index in indices for label in index.labels}
    numbers = {label for label in labels if isinstance(label, int)}
    if numbers and numbers != labels:
        name = next(label for label in labels if label not in numbers)
        raise UserError(f"labels are numbers and names, such as {min(numbers)} and {name!r}")
    if numbers and max(numbers) >= _MAX_CLASSES:
        raise UserError(f"label {max(numbers)} is over the limit of {_MAX_CLASSES} classes")
    if numbers:
        return [str(number) for number in range(max(numbers) + 1)]
    return sorted(map(str, labels))


def _make_samples(
    shards: Sequence[Shard], indices: Sequence[ShardIndex], classes: list[str]
) -> Samples:
    given = [label for index in indices for label in index.labels]
    numbers = {name: number for number, name in enumerate(classes)}
    for label in dict.fromkeys(given):
        if label not in numbers and not (isinstance(label, int) and label < len(classes)):
            raise UserError(
                f"{shards[0].location}: label {label!r} is none of the {len(classes)} classes"
            )
    labels = [label if isinstance(label, int) else numbers[label] for label in given]
    order = _order(indices)
    images = ShardImages(shards, indices, order)
    return Samples(
        images=images,
        labels=[labels[i] for i in order],
        classes=classes,
        shards=images.numbers.tolist(),
    )
