"""Reads shards: local or remote tar files of images in WebDataset's layout, with random access.

`spanets shard` writes a folder with a `dataset.json`, which lists parts, classes and shards. Other
shards are named by a pattern. Their parts follow from the names, such as train-0000.tar or
train/0000.tar; if no name contains a part, all are one set to be split:

    shards                              https://host/shards
    photos-{train,val}-*.tar            s3://bucket/photos-{train,val}-{0000..0063}.tar

WebDataset's own pipeline streams shards and shuffles in a buffer, so that an epoch depends on the
number of processes and cannot resume in the middle. Here every image has an index, and
`EpochSampler` draws each once per epoch.
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
from spanets_runtime.progress import progress

_READERS = 16  # threads that read indices; they mostly wait for the network


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Attributes:
        location: Path or URL.
        length: Length in bytes.
        cache: Cache folder for its copy, if it is a URL.
        name: Prefix of its images' names in a run's split list, or "" if names need none.
    """

    location: str
    length: int
    cache: Path
    name: str = ""

    def local(self) -> Path:
        """Returns the local path of the shard, and downloads a remote one."""
        if remote.is_url(self.location):
            return remote.fetch(self.location, self.cache, self.length)
        return Path(self.location)


@dataclass(frozen=True)
class ShardImage:
    """One image of a shard; see `ShardIndex`.

    Attributes:
        names, number: The list of names and this image's index in it; read for messages only.
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
            ImageError: they do not match the index.
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
        """The image's name in a run's split list, which stays when the data set moves."""
        return self.shard.name + self.names[self.number]

    def __str__(self) -> str:
        return f"{self.shard.location}: {self.names[self.number]}"


class ShardImages(Sequence[ShardImage]):
    """All images of several shards, stored in arrays for the reason given in `PackedTexts`.

    Args:
        shards: The tar files.
        indices: The index of each.
        order: Order of all images, as positions in the order of the files, (N,).
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
    """Returns the original order of the data set if indices hold it, else that of the files."""
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

    Reads the indices beside the shards, and creates missing ones.

    Args:
        root: A folder or URL with a `dataset.json`, or a pattern of shards.
        label_key: See `list_tar`.
        cache: The folder for copies of remote files; None means `default_cache()`.
        known: Classes of a checkpoint. Earlier versions read labels as numbers that this one
            reads as names.

    Raises:
        UserError: there are no shards, or shards or labels cannot be used.
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
    """Returns the class names, from `dataset.json` or else from the labels, and notes on them."""
    if found.classes is not None:
        return found.classes, describe_twins(found.classes, origin)
    classes, notes = find_classes(indices, origin, known)
    if not written or classes == known:
        return classes, notes
    named = read_classes_beside(found)
    if named is not None:
        return named, describe_twins(named, origin)
    unnamed = f"{origin}: classes are named by their numbers, because there is no {DATASET} beside"
    return classes, (unnamed, *notes)


def _read_indices(locations: Sequence[str], cache: Path, label_key: str | None) -> list[ShardIndex]:
    def read(location: str) -> ShardIndex:
        return read_index(location, cache, label_key)

    with ThreadPoolExecutor(_READERS) as pool:
        watched = progress(locations, "shards")
        return list(pool.map(read, watched))


def read_index(location: str, cache: Path, label_key: str | None = None) -> ShardIndex:
    """Reads the index beside a shard, or lists the shard and writes the index beside it.

    Raises:
        UserError: the shard cannot be read, or does not match its index.
    """
    path = Path(location)
    if remote.is_url(location):
        content = remote.read_small(remote.beside(location, SUFFIX))
        if content is not None:
            index = parse_index(content, location + SUFFIX)
            # For an index listed later, the shard may have changed since.
            if index.is_written and label_key in (None, index.label_key):
                return index
        path = remote.fetch(location, cache)
    return _index_here(path, label_key)


def _index_here(path: Path, label_key: str | None) -> ShardIndex:
    """Reads the index beside a local shard if it is up to date, else lists the shard."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # a ValueError for an impossible file name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({reason})") from None
    beside = path.with_name(path.name + SUFFIX)
    before = _read_beside(beside)
    if before is not None and label_key not in (None, before.label_key):
        before = None  # its labels come from another key
    if before is not None and before.is_written and before.length != size:
        raise UserError(f"{path}: has {size} bytes, its index says {before.length}; copy it again")
    whole = before is not None and before.is_faithful and before.length == size
    if before is not None and whole and _is_newer(beside, path):
        return before
    index = list_tar(path, label_key)
    if before is not None and before.is_written:
        _compare(before, index, path, beside)
        return before
    with suppress(UserError):  # in a read-only folder, the shard is listed again next time
        write_atomically(beside, lambda file: file.write(index.to_json()))
    return index


def _compare(written: ShardIndex, listed: ShardIndex, path: Path, beside: Path) -> None:
    """Compares an index written with a shard to the current content of the shard.

    Raises:
        UserError: they differ.
    """
    same_places = (written.offsets, written.sizes) == (listed.offsets, listed.sizes)
    if not same_places or list(map(str, written.labels)) != list(map(str, listed.labels)):
        raise UserError(
            f"{path}: its images or labels are not those that {beside.name} was written with; "
            f"write the shards again, or remove {beside.name}"
        )
    with suppress(OSError):
        os.utime(beside)  # marks the index as newer, so that the next start skips this comparison


def _read_beside(path: Path) -> ShardIndex | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return parse_index(file.read(MAX_INDEX_BYTES + 1), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _is_newer(index: Path, shard: Path) -> bool:
    """Whether an index is newer than the last change of a shard, including copying it."""
    changed = shard.stat()
    return index.stat().st_mtime_ns > max(changed.st_mtime_ns, changed.st_ctime_ns)


def _describe_members(indices: Sequence[ShardIndex], origin: str) -> tuple[str, ...]:
    """Returns notes about skipped members and repeated names."""
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
