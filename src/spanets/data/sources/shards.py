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

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from tqdm import tqdm

from spanets.data.class_names import describe_twins
from spanets.data.packed import PackedTexts
from spanets.data.samples import Samples
from spanets.data.sources import remote
from spanets.data.sources.shard_index import MAX_INDEX_BYTES, SUFFIX, ShardIndex, parse_index
from spanets.data.sources.shard_labels import find_classes, number_labels
from spanets.data.sources.shard_names import (
    DATASET,
    ShardSet,
    find_shards,
    names_below,
    read_classes_beside,
)
from spanets.data.sources.tar_listing import list_tar
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.images import ImageError

_READERS = 16  # of indices; they wait for the network, mostly


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Attributes:
        location: Path or URL.
        length: In bytes.
        cache: The folder for its copy, if it is a URL.
        name: What its images' names in a run's list begin with; "" where they need nothing more.
    """

    location: str
    length: int
    cache: Path
    name: str = ""

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

    @property
    def key(self) -> str:
        """Its name in a run's list, wherever the data set lies."""
        return self.shard.name + self.names[self.number]

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
    root: str,
    label_key: str | None = None,
    cache: str | None = None,
    known: Sequence[str] | None = None,
) -> dict[str, Samples]:
    """Lists the images of shards by part: "train", perhaps "val", perhaps "test".

    Indices are read from beside the shards, and made where there are none.

    Args:
        root: A folder or URL with a `dataset.json`, or a pattern of shards.
        label_key: See `list_tar`.
        cache: The folder for copies of what is elsewhere; None takes `default_cache()`.
        known: Classes of a checkpoint, which may have been numbered where a version of today finds
            names.

    Raises:
        UserError: no shards, shards that cannot be read, or labels that are no classes.
    """
    folder = remote.default_cache() if cache is None else Path(os.path.expanduser(cache))
    root = os.path.expanduser(root)
    found = find_shards(root)
    indices = {name: _read_indices(some, folder, label_key) for name, some in found.parts.items()}
    written = all(index.is_written for some in indices.values() for index in some)
    classes, notes = _choose_classes(found, indices["train"], written, root, known)
    samples = {}
    for name, locations in found.parts.items():
        names = [""] * len(locations) if written else names_below(found.base, locations)
        shards = [
            Shard(location, index.length, folder, f"{prefix}/" if prefix else "")
            for location, index, prefix in zip(locations, indices[name], names, strict=True)
        ]
        about = (*notes, *_describe_members(indices[name], root))
        samples[name] = _make_samples(shards, indices[name], classes, about)
    return samples


def _choose_classes(
    found: ShardSet,
    indices: Sequence[ShardIndex],
    written: bool,
    origin: str,
    known: Sequence[str] | None,
) -> tuple[list[str], tuple[str, ...]]:
    """Returns the class names, and lines about them: those that are told, else what labels say."""
    if found.classes is not None:
        return found.classes, describe_twins(found.classes, origin)
    classes, notes = find_classes(indices, origin, known)
    if not written or classes == known:
        return classes, notes
    named = read_classes_beside(found)
    if named is not None:
        return named, describe_twins(named, origin)
    unnamed = f"{origin}: classes are called by their numbers, for no {DATASET} beside names them"
    return classes, (unnamed, *notes)


def _read_indices(locations: Sequence[str], cache: Path, label_key: str | None) -> list[ShardIndex]:
    def read(location: str) -> ShardIndex:
        return read_index(location, cache, label_key)

    with ThreadPoolExecutor(_READERS) as pool:
        watched = tqdm(locations, desc="shards", disable=None, leave=False)
        return list(pool.map(read, watched))


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
            # Of another the shard may have changed since.
            if index.is_written and label_key in (None, index.label_key):
                return index
        path = remote.fetch(location, cache)
    return _index_here(path, label_key)


def _index_here(path: Path, label_key: str | None) -> ShardIndex:
    """Reads the index beside a shard if it is the shard's, and else lists the shard."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({reason})") from None
    beside = path.with_name(path.name + SUFFIX)
    before = _read_beside(beside)
    if before is not None and label_key not in (None, before.label_key):
        before = None  # it tells of other labels
    if before is not None and before.is_written and before.length != size:
        raise UserError(f"{path}: has {size} bytes, its index says {before.length}; copy it again")
    whole = before is not None and before.is_faithful and before.length == size
    if before is not None and whole and _is_newer(beside, path):
        return before
    index = list_tar(path, label_key)
    if before is not None and before.is_written:
        _compare(before, index, path, beside)
        return before
    with suppress(UserError):  # a folder that cannot be written costs time alone
        write_atomically(beside, lambda file: file.write(index.to_json()))
    return index


def _compare(written: ShardIndex, listed: ShardIndex, path: Path, beside: Path) -> None:
    """Compares an index that was written with a shard with what is in the shard now.

    Raises:
        UserError: they differ.
    """
    same_places = (written.offsets, written.sizes) == (listed.offsets, listed.sizes)
    if not same_places or list(map(str, written.labels)) != list(map(str, listed.labels)):
        raise UserError(
            f"{path}: its images or labels are not those that {beside.name} was written with; "
            f"write the shards anew, or remove {beside.name}"
        )
    with suppress(OSError):
        os.utime(beside)  # else it is compared again at every start


def _read_beside(path: Path) -> ShardIndex | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return parse_index(file.read(MAX_INDEX_BYTES + 1), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _is_newer(index: Path, shard: Path) -> bool:
    """Whether an index was written after the last change of a shard, a copy counting as one."""
    changed = shard.stat()
    return index.stat().st_mtime_ns > max(changed.st_mtime_ns, changed.st_ctime_ns)


def _describe_members(indices: Sequence[ShardIndex], origin: str) -> tuple[str, ...]:
    """Returns lines about members that were passed over, and about names that come twice."""
    notes = []
    if links := sum(index.links for index in indices):
        notes.append(f"{origin}: {links} links or devices in its shards left out")
    if twice := sum(len(index.names) - len(set(index.names)) for index in indices):
        notes.append(
            f"{origin}: {twice} names come more than once in a shard, as by tar --append; all of "
            "their images are used"
        )
    return tuple(notes)


def _make_samples(
    shards: Sequence[Shard],
    indices: Sequence[ShardIndex],
    classes: list[str],
    notes: tuple[str, ...],
) -> Samples:
    labels = number_labels(indices, classes, shards[0].location)
    order = _order(indices)
    images = ShardImages(shards, indices, order)
    return Samples(
        images=images,
        labels=[labels[i] for i in order],
        classes=classes,
        shards=images.numbers.tolist(),
        notes=notes,
    )
