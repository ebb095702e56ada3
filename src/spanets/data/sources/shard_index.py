"""The index of a shard: what a tar file of images holds and where, stored beside the file.

As in WebDataset, a sample is a run of members whose names differ only in their suffixes:

    000000017.jpg   the image, with one of `IMAGE_SUFFIXES`
    000000017.cls   its label, a text; or .txt, a class name; or a key of a .json

    With the index, one seek reads any image, so that shards allow random access like a folder. No
    member is extracted or unpickled; shards with pickles, which WebDataset supports, are refused.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from spanets_runtime.errors import UserError

SUFFIX = ".index.json"
FORMATS = (1, 2)
MAX_IMAGE_BYTES = 2**28
MAX_INDEX_BYTES = 2**28
MAX_LABEL_LENGTH = 256  # longer texts are captions, not class names
MAX_CLASSES = 2**20

_MAX_SHARD_BYTES = 2**50
_NUMBERS = {
    "offsets": _MAX_SHARD_BYTES,
    "sizes": MAX_IMAGE_BYTES,
    "checksums": 2**32 - 1,
    "positions": 2**40,
}


@dataclass(frozen=True)
class ShardIndex:
    """Where a shard's images are; all lists have one entry per image, in the order of the file.

    Attributes:
        length: Length of the shard in bytes.
        names: Names of the images, for messages.
        offsets, sizes: Offset and size of the encoded images, in bytes.
        labels: Labels: integers or texts.
        label_key: Key of the .json members that holds the labels, or None.
        checksums: CRC-32 of the encoded images, or None.
        positions: Positions of the images in the order of the whole data set, or None.
        from_cls: Whether the labels are texts of .cls members, which may mean numbers.
        links: Number of links, devices and other irregular members that were skipped.
        format: Format of the index: 1 if written by `spanets shard` or listed by earlier versions,
            2 if listed from a shard with labels such as "007" kept as they are.
    """

    length: int
    names: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[int] | list[str] | list[int | str]
    label_key: str | None = None
    checksums: list[int] | None = None
    positions: list[int] | None = None
    from_cls: bool = False
    links: int = 0
    format: int = 1

    @property
    def is_written(self) -> bool:
        """Whether the index was written with the shard, not listed from it later."""
        return self.checksums is not None

    @property
    def is_faithful(self) -> bool:
        """Whether labels are the same as in the shard; earlier versions listed "007" as 7."""
        return self.is_written or self.format > 1

    def to_json(self) -> bytes:
        """Returns the index as JSON for `parse_index`."""
        values = {"format": self.format, **asdict(self)}
        if self.format == 1:
            del values["from_cls"], values["links"]
        return json.dumps(values, separators=(",", ":")).encode()


def parse_index(content: bytes, origin: str) -> ShardIndex:
    """Reads and validates an index written by `ShardIndex.to_json`.

    Raises:
        UserError: it is damaged; the message names `origin`.
    """
    try:
        if len(content) > MAX_INDEX_BYTES:
            raise ValueError(f"has more than {MAX_INDEX_BYTES} bytes")
        values = json.loads(content)
        if values["format"] not in FORMATS:
            raise ValueError("written by another version")
        index = ShardIndex(**values)
        _check(index)
    # A file that is not an index can cause any of these.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{origin}: is not a shard index ({error}); remove it to have it created again"
        ) from None
    return index


def _check(index: ShardIndex) -> None:
    """Raises a ValueError for lists of unequal length, wrong types, or images outside the shard."""
    if not _is_number(index.length, _MAX_SHARD_BYTES) or not _is_number(index.links, 2**40):
        raise ValueError("length or links is invalid")
    if not isinstance(index.label_key, str | None) or not isinstance(index.from_cls, bool):
        raise ValueError("label_key or from_cls is invalid")
    for name in ("names", "labels", *_NUMBERS):
        column = getattr(index, name)
        if column is None and name in ("checksums", "positions"):
            continue
        if not isinstance(column, list) or len(column) != len(index.names):
            raise ValueError(f"{name} has a wrong length")
        if not _is_column(column, name):
            raise ValueError(f"{name} holds invalid values")
    for offset, size in zip(index.offsets, index.sizes, strict=True):
        if offset + size > index.length:
            raise ValueError("an image lies outside of the shard")


def _is_column(column: list[Any], name: str) -> bool:
    """Whether all values of a list are valid; fast enough for a million values."""
    kinds = set(map(type, column))
    if name == "names":
        return kinds <= {str}
    if name == "labels":
        return kinds <= {int, str} and all(map(is_label, set(column)))
    in_range = not column or (min(column) >= 0 and max(column) <= _NUMBERS[name])
    return kinds <= {int} and in_range


def is_label(value: Any) -> bool:
    """Whether a value can be a label: a class name or a class number."""
    if isinstance(value, str):
        return 0 < len(value) <= MAX_LABEL_LENGTH
    return _is_number(value, MAX_CLASSES - 1)


def _is_number(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
