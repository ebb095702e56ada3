"""Reads data sets in Hugging Face's format: saved to disk, parquet files, or named on the hub.

The library `datasets` finds, downloads and stores them. Images are decoded here, under the same
limits as all others. Since version 4, the library runs no code that comes with a data set.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from spanets.data.class_names import describe_twins
from spanets.data.samples import Samples
from spanets.data.sources.hub_files import check_built, check_descriptions, check_inside
from spanets.data.sources.parts import Part, name_parts
from spanets.data.sources.shard_index import MAX_IMAGE_BYTES
from spanets_runtime.errors import UserError, nearest, require
from spanets_runtime.images import ImageError

_LABELS = ("label", "labels", "class", "cls", "target")
_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class HubImage:
    """One image of a data set: a row of an undecoded image column.

    Attributes:
        folders: Folders that may hold the image, if it is a file.
    """

    rows: Any
    column: str
    index: int
    origin: str
    folders: Sequence[Path]

    def read(self) -> bytes:
        """Returns its encoded bytes.

        Raises:
            ImageError: there is no image, or it is too large.
            UserError: the data set names a file outside of its own folders.
        """
        content, path = self._stored()
        if content is None and path is not None:
            content = self._read_file(path)
        if content is None:
            raise ImageError(f"{self}: no such file as {path}" if path else f"{self}: no image")
        if len(content) > MAX_IMAGE_BYTES:
            raise ImageError(f"{self}: over the limit of {MAX_IMAGE_BYTES} bytes")
        return content

    @property
    def key(self) -> str:
        """The image's name in a run's split list, which does not depend on the other rows."""
        content, path = self._stored()
        if content is not None:
            digest = hashlib.blake2b(content, digest_size=10).hexdigest()
            return f"{path or 'image'}#{digest}"
        for folder in self.folders:
            if path is not None and Path(path).is_relative_to(folder):
                return Path(path).relative_to(folder).as_posix()
        return path or f"row {self.index}"

    def _stored(self) -> tuple[bytes | None, str | None]:
        stored = self.rows[self.index][self.column] or {}
        return stored.get("bytes"), stored.get("path")

    def _read_file(self, path: str) -> bytes | None:
        place = check_inside(path, self.folders, str(self))
        if not place.is_file():
            return None
        if place.stat().st_size > MAX_IMAGE_BYTES:
            raise ImageError(f"{self}: over the limit of {MAX_IMAGE_BYTES} bytes")
        return place.read_bytes()

    def __str__(self) -> str:
        return f"{self.origin}: row {self.index}"


class HubImages(Sequence[HubImage]):
    """The image column of a data set.

    Args:
        rows: A `datasets.Dataset` with the undecoded column.
        column: Name of the column.
        origin: Name of the data set, for messages.
        folders: Folders that may hold images stored as files.
    """

    def __init__(self, rows: Any, column: str, origin: str, folders: Sequence[Path]) -> None:
        self.rows = rows
        self.column = column
        self.origin = origin
        self.folders = folders

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> HubImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[HubImage]: ...
    def __getitem__(self, index: int | slice) -> HubImage | list[HubImage]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return HubImage(self.rows, self.column, number, self.origin, self.folders)


def hub_parts(
    root: str, image_column: str | None = None, label_column: str | None = None
) -> dict[str, Samples]:
    """Lists the images of a data set by part: "train", perhaps "val", perhaps "test".

    Args:
        root: A folder of `save_to_disk` or of parquet files, or a name such as "owner/name".
        image_column: Name of the image column; None finds it by its type.
        label_column: Name of the label column; None finds it by its type or name.

    Raises:
        UserError: no such data set, no such columns, or images without labels.
    """
    parts, unused = _load(root)
    image = _find_image_column(parts["train"], image_column, root)
    label = _find_label_column(parts["train"], label_column, root)
    classes = _find_classes(parts["train"], label, root)
    notes = [*unused, *describe_twins(classes, root)]
    read = {
        name: _read_labels(rows, label, classes, f"{root}, {name}") for name, rows in parts.items()
    }
    for name, labels in read.items():
        if lacking := labels.count(None):
            if name != "test":
                raise UserError(
                    f"{root}: {lacking} of {len(labels)} images of {name} have no label in column "
                    f"{label!r}"
                )
            notes.append(_describe_unlabelled(root, lacking, len(labels)))
    folders = _image_folders(root)
    found: dict[str, Samples] = {}
    for name, labels in read.items():
        kept = {row: number for row, number in enumerate(labels) if number is not None}
        if labels and not kept:
            continue
        rows = _undecoded(parts[name], image, root)
        images: Sequence[HubImage] = HubImages(rows, image, f"{root}, {name}", folders)
        if len(kept) < len(labels):
            images = [images[row] for row in kept]
        found[name] = Samples(images, list(kept.values()), classes, notes=tuple(notes))
    return found


def _describe_unlabelled(root: str, lacking: int, count: int) -> str:
    """Returns a note about test images without a label; many test sets have no public labels."""
    if lacking == count:
        return f"{root}: the {count} images of test have no labels, left out"
    return f"{root}: {lacking} of {count} images of test have no label, left out"


def _image_folders(root: str) -> list[Path]:
    """Returns the folders that may hold image files: the data set's, and those of the cache."""
    config = require("datasets", "hf").config
    unpacked = [Path(config.DOWNLOADED_DATASETS_PATH), Path(config.EXTRACTED_DATASETS_PATH)]
    path = Path(os.path.expanduser(root))
    if path.exists():
        return [path, *unpacked]
    cache = Path(require("huggingface_hub", "hf").constants.HF_HUB_CACHE)
    return [cache / f"datasets--{root.replace('/', '--')}", *unpacked]


def _load(root: str) -> tuple[dict[Part, Any], list[str]]:
    """Returns the data sets by part, and notes about splits that are not a part."""
    datasets = require("datasets", "hf")
    path = Path(os.path.expanduser(root))
    if not path.exists() and not _HUB_NAME.fullmatch(root):
        raise UserError(f"{root}: no such folder, and no name of a data set on the hub")
    try:
        with _quiet(datasets):
            found = _load_folder(datasets, path) if path.exists() else _load_named(datasets, root)
    except UserError:
        raise
    # The readers of `datasets` raise many kinds of errors.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{root}: cannot be read as a data set ({reason})") from error
    if not isinstance(found, dict):
        return {"train": found}, []
    names = name_parts(found, root)
    if "train" not in names:
        raise UserError(f"{root}: has {', '.join(found)}, but no part named train")
    unused = [name for name in found if name not in names.values()]
    notes = [f"{root}: left out, because they are not parts: {', '.join(unused)}"] if unused else []
    return {part: found[name] for part, name in names.items()}, notes


def _load_folder(datasets: Any, path: Path) -> Any:
    check_descriptions(path)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(path))
    return datasets.load_dataset(str(path))


def _load_named(datasets: Any, name: str) -> Any:
    builder = datasets.load_dataset_builder(name)
    check_built(builder.config.data_files, "hf://datasets/", name)
    builder.download_and_prepare()
    return builder.as_dataset()


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Hides progress bars if stderr is not a terminal."""
    if sys.stderr.isatty() or not datasets.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _find_image_column(rows: Any, wanted: str | None, root: str) -> str:
    kind = require("datasets", "hf").Image
    found = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
    return _choose(rows, wanted, found, root, "image")


def _find_label_column(rows: Any, wanted: str | None, root: str) -> str:
    kind = require("datasets", "hf").ClassLabel
    found = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
    found = found or [name for name in rows.features if name in _LABELS]
    return _choose(rows, wanted, found, root, "label")


def _choose(rows: Any, wanted: str | None, found: list[str], root: str, what: str) -> str:
    """Returns the wanted column, or the only candidate."""
    columns, key = list(rows.features), f"data.{what}_column"
    if wanted is not None and wanted not in columns:
        hint = nearest(wanted, columns) or f"; it has {', '.join(columns)}"
        raise UserError(f"{root}: no column {wanted!r}, as {key} says{hint}")
    if wanted is None and len(found) != 1:
        choice = f"{' and '.join(found)} could be" if found else f"none of {', '.join(columns)} is"
        raise UserError(f"{root}: {choice} the {what}; name the column: --{key} NAME")
    return wanted or found[0]


def _undecoded(rows: Any, column: str, root: str) -> Any:
    kind = require("datasets", "hf").Image(decode=False)
    try:
        return rows.select_columns([column]).cast_column(column, kind)
    # pyarrow raises many kinds of errors for other types.
    except Exception as error:
        raise UserError(f"{root}: column {column!r} holds no images ({error})") from error


def _find_classes(rows: Any, column: str, root: str) -> list[str]:
    feature = rows.features[column]
    if hasattr(feature, "names"):
        return list(feature.names)
    values = set(rows.unique(column)) - {None}
    if all(isinstance(value, str) for value in values):
        return sorted(values)
    if all(isinstance(value, int) and value >= -1 for value in values):
        return [str(number) for number in range(max(values, default=-1) + 1)]
    raise UserError(f"{root}: column {column!r} holds neither names nor numbers of classes")


def _read_labels(rows: Any, column: str, classes: list[str], origin: str) -> list[int | None]:
    """Returns the label of each image, None where it is missing."""
    values = list(rows[column])
    numbers: dict[Any, int] = {name: number for number, name in enumerate(classes)}
    labels: list[int | None] = []
    for value in values:
        if value in (None, -1):
            labels.append(None)
            continue
        label = int(value) if isinstance(value, int) else numbers.get(value, -1)  # also a bool
        if not 0 <= label < len(classes):
            raise UserError(f"{origin}: label {value!r} is none of the {len(classes)} classes")
        labels.append(label)
    return labels
