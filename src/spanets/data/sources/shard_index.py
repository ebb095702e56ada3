"""What a tar file of images holds and where: listed once, and kept beside the file.

A sample is a run of members whose names differ in their endings alone, as WebDataset has it:

    000000017.jpg   the image, its ending one of `IMAGE_SUFFIXES`
    000000017.cls   its label, a text; or .txt, a class name; or a key of a .json

With the index, any image is read by one seek, so that shards are drawn from like a folder. No
member is extracted or unpickled: shards with pickles, which WebDataset knows as well, are refused.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from spanets_runtime.errors import UserError

SUFFIX = ".index.json"
FORMATS = (1, 2)
MAX_IMAGE_BYTES = 2**28
MAX_INDEX_BYTES = 2**28
MAX_LABEL_LENGTH = 256  # a caption is no class
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
    """Where a shard's images are; all lists have one entry an image, in the order of the file.

    Attributes:
        length: Of the shard, in bytes.
        names: What messages call the images.
        offsets, sizes: Of the encoded images, in bytes.
        labels: Whole numbers or texts.
        label_key: The key of the .json members that the labels are from, or None.
        checksums: CRC-32 of the encoded images, or None.
        positions: Places of the images in the order of the whole data set, or None.
        from_cls: Whether the labels are texts of .cls members, which may be meant as numbers.
        links: How many links, devices and other members that are no files were passed over.
        format: Of the file: 1 is what `spanets shard` writes, and what earlier versions listed; 2
            is listed from a shard, and keeps a label such as "007" as it is.
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
        """Whether it was written with the shard, and not listed from it."""
        return self.checksums is not None

    @property
    def is_faithful(self) -> bool:
        """Whether labels are as the shard has them; earlier versions listed "007" as 7."""
        return self.is_written or self.format > 1

    def to_json(self) -> bytes:
        """Returns what `parse_index` reads."""
        values = {"format": self.format, **asdict(self)}
        if self.format == 1:
            del values["from_cls"], values["links"]
        return json.dumps(values, separators=(",", ":")).encode()


def parse_index(content: bytes, origin: str) -> ShardIndex:
    """Reads an index that `ShardIndex.to_json` wrote, believing nothing of it.

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
    # Whatever a file that is none of ours leads to.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{origin}: no index of a shard ({error}); remove it, and it is made again"
        ) from None
    return index


def _check(index: ShardIndex) -> None:
    """Raises a ValueError for lists out of step, of other types, or that leave the shard."""
    if not _is_number(index.length, _MAX_SHARD_BYTES) or not _is_number(index.links, 2**40):
        raise ValueError("no length in bytes")
    if not isinstance(index.label_key, str | None) or not isinstance(index.from_cls, bool):
        raise ValueError("tells nothing of its labels")
    for name in ("names", "labels", *_NUMBERS):
        column = getattr(index, name)
        if column is None and name in ("checksums", "positions"):
            continue
        if not isinstance(column, list) or len(column) != len(index.names):
            raise ValueError(f"{name} is out of step")
        if not _is_column(column, name):
            raise ValueError(f"{name} holds other things, or numbers out of range")
    for offset, size in zip(index.offsets, index.sizes, strict=True):
        if offset + size > index.length:
            raise ValueError("an image lies outside of the shard")


def _is_column(column: list[Any], name: str) -> bool:
    """Whether a list of perhaps a million values holds what its name says."""
    kinds = set(map(type, column))
    if name == "names":
        return kinds <= {str}
    if name == "labels":
        return kinds <= {int, str} and all(map(is_label, set(column)))
    in_range = not column or (min(column) >= 0 and max(column) <= _NUMBERS[name])
    return kinds <= {int} and in_range


def is_label(value: Any) -> bool:
    """Whether a value can be a label: a class name, or the number of a class."""
    if isinstance(value, str):
        return 0 < len(value) <= MAX_LABEL_LENGTH
    return _is_number(value, MAX_CLASSES - 1)


def _is_number(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
