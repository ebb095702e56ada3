"""Lists the images of a tar file by its headers, in bounded time and memory for any content."""

import json
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from spanets.data.sources.shard_index import (
    MAX_CLASSES,
    MAX_IMAGE_BYTES,
    MAX_LABEL_LENGTH,
    ShardIndex,
    is_label,
)
from spanets_runtime.errors import UserError
from spanets_runtime.images import IMAGE_SUFFIXES
from spanets_runtime.listing import is_system

_MAX_LABEL_BYTES = 2**20
_MAX_HEADER_BYTES = 2**22
_LABEL_KEYS = ("label", "cls", "class", "class_name", "target")
_PICKLES = frozenset({"pyd", "pickle", "pkl", "pt", "pth", "joblib"})

# First bytes of compressed files, and the command that uncompresses them.
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}

# Raised by Python's tarfile for invalid headers.
_HEADER_ERRORS = (
    tarfile.TarError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
)


class _BadShard(Exception):
    """A refused member or sample; the message gives the reason."""


class _Frugal:
    """A file with a limit on the bytes read per member, which headers and labels never reach."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = _MAX_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Returns the next `size` bytes.

        Raises:
            _BadShard: a member's headers exceed the limit.
        """
        self.left -= size
        if size < 0 or self.left < 0:
            raise _BadShard("a header of its claims to be longer than headers are")
        return self.file.read(size)


@dataclass(frozen=True)
class _Sample:
    image: tarfile.TarInfo
    label: int | str
    label_key: str | None
    from_cls: bool


def list_tar(path: Path, label_key: str | None = None) -> ShardIndex:
    """Lists the samples of a tar file by its headers and labels, without reading images.

    Args:
        path: An uncompressed tar file.
        label_key: The key of .json members that holds the label; None means .cls or .txt, then
            the usual keys of .json.

    Raises:
        UserError: it is damaged or no tar file, holds pickles, a sample lacks its image or label,
            or the file changed during the listing.
    """
    try:
        with open_regular(path) as file:
            before = os.fstat(file.fileno())
            index = _list(file, before.st_size, label_key)
            after = os.fstat(file.fileno())
    except _BadShard as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except _HEADER_ERRORS as error:
        raise UserError(f"{path}: damaged, or no uncompressed tar file ({error})") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{path}: changed while it was read; start again")
    return index


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading; refuses pipes and devices, which might never end.

    Raises:
        OSError: it does not exist or cannot be opened.
        UserError: it is not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path}: is not a regular file")
    return path.open("rb")


def _list(file: BinaryIO, length: int, label_key: str | None) -> ShardIndex:
    _refuse_compressed(file)
    frugal = _Frugal(file)
    links: list[str] = []
    with tarfile.open(fileobj=frugal, mode="r:") as tar:  # type: ignore[call-overload]
        samples = [
            _read_sample(tar, key, list(members), label_key)
            for key, members in groupby(
                _files(tar, frugal, length, links), key=lambda member: _split(member)[0]
            )
        ]
    keys = {sample.label_key for sample in samples}
    return ShardIndex(
        length=length,
        names=[sample.image.name for sample in samples],
        offsets=[sample.image.offset_data for sample in samples],
        sizes=[sample.image.size for sample in samples],
        labels=[sample.label for sample in samples],
        label_key=keys.pop() if len(keys) == 1 else None,
        from_cls=bool(samples) and all(sample.from_cls for sample in samples),
        links=len(links),
        format=2,
    )


def _refuse_compressed(file: BinaryIO) -> None:
    head = file.read(8)
    file.seek(0)
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            raise _BadShard(f"is compressed and has no random access; uncompress it with {command}")


def _files(
    tar: tarfile.TarFile, frugal: _Frugal, length: int, links: list[str]
) -> Iterator[tarfile.TarInfo]:
    """Yields regular files that are not hidden; appends links and devices to `links`."""
    last = -1
    while (member := tar.next()) is not None:
        # A negative size would lead back to an earlier member.
        if not last < tar.offset <= length:
            raise _BadShard(
                f"damaged: {member.name!r} claims to have {member.size} bytes, and the file ends "
                "before that"
            )
        last, frugal.left = tar.offset, _MAX_HEADER_BYTES
        tar.members = []  # type: ignore[attr-defined]  # else memory grows with each member
        if member.isdir() or _is_passed_over(member.name):
            continue
        if not member.isreg():
            links.append(member.name)
            continue
        _check_kind(member)
        yield member


def _is_passed_over(name: str) -> bool:
    """Whether a member is hidden, or lies in a folder that a system or archiver adds."""
    *folders, last = name.split("/")
    return is_system(last) or any(is_system(part) and part[:1] != "." for part in folders)


def _check_kind(member: tarfile.TarInfo) -> None:
    kind = _split(member)[1].rpartition(".")[2]
    if kind in _PICKLES:
        raise _BadShard(
            f"holds {member.name!r}, a pickle, which may run code; write the shard without it"
        )
    if member.issparse() or member.size > MAX_IMAGE_BYTES:
        raise _BadShard(f"{member.name!r} has {member.size} bytes, or is sparse: no image")


def _split(member: tarfile.TarInfo) -> tuple[str, str]:
    """Returns the name of the sample, and the lower-case suffix after the first dot."""
    folder, name = os.path.split(member.name)
    stem, _, ending = name.partition(".")
    return os.path.join(folder, stem), ending.lower()


def _read_sample(
    tar: tarfile.TarFile, key: str, members: list[tarfile.TarInfo], label_key: str | None
) -> _Sample:
    by_ending: dict[str, tarfile.TarInfo] = {}
    for member in members:
        if by_ending.setdefault(_split(member)[1], member) is not member:
            raise _BadShard(f"holds {member.name!r} twice; write it again, with a name for each")
    images = [m for ending, m in by_ending.items() if f".{ending}" in IMAGE_SUFFIXES]
    if len(images) != 1:
        raise _BadShard(f"sample {key!r} has {len(images)} images, must be one")
    plain = by_ending.get("cls") or by_ending.get("txt")
    if plain is not None and label_key is None:
        text = _read_bytes(tar, plain).decode("utf-8-sig", "surrogateescape").strip()
        from_cls = plain is by_ending.get("cls")
        return _Sample(images[0], _check_label(text, key), None, from_cls)
    if "json" not in by_ending:
        wanted = ".cls, .txt or .json" if label_key is None else ".json"
        raise _BadShard(f"sample {key!r} has no label, which is a {wanted} beside the image")
    label, found = _read_json_label(_read_bytes(tar, by_ending["json"]), label_key, key)
    return _Sample(images[0], _check_label(label, key), found, from_cls=False)


def _read_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MAX_LABEL_BYTES:
        raise _BadShard(f"{member.name!r} has {member.size} bytes: no label")
    file = tar.extractfile(member)
    assert file is not None  # a regular file
    return file.read()


def _read_json_label(content: bytes, label_key: str | None, sample: str) -> tuple[Any, str]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _BadShard(f"the .json of sample {sample!r} cannot be read ({error})") from None
    values = values if isinstance(values, dict) else {}
    for key in _LABEL_KEYS if label_key is None else (label_key,):
        if key in values:
            return values[key], key
    known = ", ".join(map(repr, values)) or "nothing"
    raise _BadShard(
        f"the .json of sample {sample!r} holds {known}; name the label: --data.label_column NAME"
    )


def _check_label(label: Any, sample: str) -> int | str:
    if is_label(label):
        return label
    shown = repr(label)[:60]
    raise _BadShard(
        f"sample {sample!r} has the label {shown}, must be a number or a class name (below "
        f"{MAX_CLASSES}, of at most {MAX_LABEL_LENGTH} letters)"
    )
