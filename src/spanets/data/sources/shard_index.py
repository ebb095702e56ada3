"""What a tar file of images holds and where: listed once, and kept beside the file.

A sample is a run of members whose names differ in their endings alone, as WebDataset has it:

    000000017.jpg   the image, its ending one of `IMAGE_SUFFIXES`
    000000017.cls   its label: a whole number or a class name; or .txt, or a key of a .json

With the index, any image is read by one seek, so that shards are drawn from like a folder. No
member is extracted or unpickled: shards with pickles, which WebDataset knows as well, are refused.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from spanets_runtime.errors import UserError
from spanets_runtime.images import IMAGE_SUFFIXES

SUFFIX = ".index.json"
FORMAT = 1
MAX_IMAGE_BYTES = 2**28
_MAX_LABEL_BYTES = 2**20
_MAX_LABEL_LENGTH = 256  # a caption is no class
_LABEL_KEYS = ("label", "cls", "class", "class_name", "target")
_PICKLES = frozenset({"pyd", "pickle", "pkl", "pt", "pth", "joblib"})


@dataclass(frozen=True)
class ShardIndex:
    """Where a shard's images are; all lists have one entry an image, in the order of the file.

    Attributes:
        length: Of the shard, in bytes.
        names: What messages call the images.
        offsets, sizes: Of the encoded images, in bytes.
        labels: Whole numbers or class names.
        label_key: The key of the .json members that the labels are from, or None.
        checksums: CRC-32 of the encoded images, or None.
        positions: Places of the images in the order of the whole data set, or None.
    """

    length: int
    names: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[int] | list[str] | list[int | str]
    label_key: str | None = None
    checksums: list[int] | None = None
    positions: list[int] | None = None

    def to_json(self) -> bytes:
        """Returns what `parse_index` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":")).encode()


def parse_index(content: bytes, origin: str) -> ShardIndex:
    """Reads an index that `ShardIndex.to_json` wrote, believing nothing of it.

    Raises:
        UserError: it is damaged; the message names `origin`.
    """
    try:
        values = json.loads(content)
        if values.pop("format") != FORMAT:
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
    kinds = {"names": str, "offsets": int, "sizes": int, "labels": int | str}
    kinds |= {"checksums": int, "positions": int}
    for name, kind in kinds.items():
        column = getattr(index, name)
        if column is None and name in ("checksums", "positions"):
            continue
        if not isinstance(column, list) or len(column) != len(index.names):
            raise ValueError(f"{name} is out of step")
        if not all(isinstance(value, kind) and not isinstance(value, bool) for value in column):
            raise ValueError(f"{name} holds other things")
    for offset, size in zip(index.offsets, index.sizes, strict=True):
        if not (offset >= 0 and 0 <= size <= MAX_IMAGE_BYTES and offset + size <= index.length):
            raise ValueError("an image lies outside of the shard")


def list_tar(path: Path, label_key: str | None = None) -> ShardIndex:
    """Lists the samples of a tar file by its headers and labels; images are passed over.

    Args:
        path: An uncompressed tar file.
        label_key: The key of .json members that holds the label; None takes .cls or .txt, then
            the usual keys of .json.

    Raises:
        UserError: it is no tar file, damaged, holds pickles, or a sample lacks image or label.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            samples = [
                _read_sample(tar, key, list(members), label_key)
                for key, members in groupby(_members(tar), key=lambda member: _split(member)[0])
            ]
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: damaged, or no uncompressed tar file ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except _BadSample as error:
        raise UserError(f"{path}: {error}") from None
    keys = {sample.label_key for sample in samples}
    return ShardIndex(
        length=path.stat().st_size,
        names=[sample.image.name for sample in samples],
        offsets=[sample.image.offset_data for sample in samples],
        sizes=[sample.image.size for sample in samples],
        labels=[sample.label for sample in samples],
        label_key=keys.pop() if len(keys) == 1 else None,
    )


class _BadSample(Exception):
    """A member or a sample that is refused; the message says why."""


@dataclass(frozen=True)
class _Sample:
    image: tarfile.TarInfo
    label: int | str
    label_key: str | None


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the files that count: no folders and links, and none that are hidden."""
    for member in tar:
        if not member.isreg() or os.path.basename(member.name).startswith("."):
            continue
        kind = _split(member)[1].rpartition(".")[2]
        if kind in _PICKLES:
            raise _BadSample(
                f"holds {member.name!r}, a pickle, which may run code; write the shard without it"
            )
        if member.issparse() or member.size > MAX_IMAGE_BYTES:
            raise _BadSample(f"{member.name!r} has {member.size} bytes, or is sparse: no image")
        yield member


def _split(member: tarfile.TarInfo) -> tuple[str, str]:
    """Returns the name of the sample, and the ending in lower case, from the first dot on."""
    folder, name = os.path.split(member.name)
    stem, _, ending = name.partition(".")
    return os.path.join(folder, stem), ending.lower()


def _read_sample(
    tar: tarfile.TarFile, key: str, members: list[tarfile.TarInfo], label_key: str | None
) -> _Sample:
    by_ending = {_split(member)[1]: member for member in members}
    images = [m for ending, m in by_ending.items() if f".{ending}" in IMAGE_SUFFIXES]
    if len(images) != 1:
        raise _BadSample(f"sample {key!r} has {len(images)} images, must be one")
    plain = by_ending.get("cls") or by_ending.get("txt")
    if plain is not None and label_key is None:
        text = _read_bytes(tar, plain).decode("utf-8", "replace").strip()
        return _Sample(images[0], _check_label(int(text) if text.isdecimal() else text, key), None)
    if "json" not in by_ending:
        wanted = ".cls, .txt or .json" if label_key is None else ".json"
        raise _BadSample(f"sample {key!r} has no label, which is a {wanted} beside the image")
    label, found = _read_json_label(_read_bytes(tar, by_ending["json"]), label_key, key)
    return _Sample(images[0], _check_label(label, key), found)


def _read_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MAX_LABEL_BYTES:
        raise _BadSample(f"{member.name!r} has {member.size} bytes: no label")
    file = tar.extractfile(member)
    assert file is not None  # a regular file
    return file.read()


def _read_json_label(content: bytes, label_key: str | None, sample: str) -> tuple[Any, str]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _BadSample(f"the .json of sample {sample!r} cannot be read ({error})") from None
    values = values if isinstance(values, dict) else {}
    for key in _LABEL_KEYS if label_key is None else (label_key,):
        if key in values:
            return values[key], key
    known = ", ".join(map(repr, values)) or "nothing"
    raise _BadSample(
        f"the .json of sample {sample!r} holds {known}; name the label: --data.label_column NAME"
    )


def _check_label(label: Any, sample: str) -> int | str:
    if isinstance(label, int) and not isinstance(label, bool) and label >= 0:
        return label
    if isinstance(label, str) and 0 < len(label) <= _MAX_LABEL_LENGTH:
        return label
    shown = repr(label)[:60]
    raise _BadSample(f"sample {sample!r} has the label {shown}, must be a number or a class name")
