"""Data sets in Hugging Face's format: saved to disk, parquet files, or by their name on the hub.

The library `datasets` finds, fetches and stores them; their images are decoded here, under the
same limits as all others. It runs no code that comes with a data set from version 4 on.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from huggingface_hub import DatasetCard

from spanets.data.samples import Samples
from spanets.data.sources.shard_index import MAX_IMAGE_BYTES
from spanets.recipe.trust import is_address
from spanets.yaml_text import load_yaml
from spanets_runtime.errors import UserError, first_line, nearest, require
from spanets_runtime.images import ImageError

_PARTS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("validation", "val", "valid", "dev"), "val"
)
# Where `datasets` looks for the files of a folder.
_CARDS = ("README.md", ".huggingface.yaml")
_LABELS = ("label", "labels", "class", "cls", "target")
_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class HubImage:
    """One image of a data set, at a row of a column that is not decoded."""

    rows: Any
    column: str
    index: int
    origin: str

    def read(self) -> bytes:
        """Returns its encoded bytes.

        Raises:
            ImageError: there are none, or too many.
        """
        stored = self.rows[self.index][self.column] or {}
        content, path = stored.get("bytes"), stored.get("path")
        if content is None and path is not None and Path(path).is_file():
            content = Path(path).read_bytes()
        if content is None:
            raise ImageError(f"{self}: no such file as {path}" if path else f"{self}: no image")
        if len(content) > MAX_IMAGE_BYTES:
            raise ImageError(f"{self}: over the limit of {MAX_IMAGE_BYTES} bytes")
        return content

    def __str__(self) -> str:
        return f"{self.origin}: row {self.index}"


class HubImages(Sequence[HubImage]):
    """The image column of a data set.

    Args:
        rows: A `datasets.Dataset` with that column, not decoded.
        column: Its name.
        origin: Where the data set is from, for messages.
    """

    def __init__(self, rows: Any, column: str, origin: str) -> None:
        self.rows = rows
        self.column = column
        self.origin = origin

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> HubImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[HubImage]: ...
    def __getitem__(self, index: int | slice) -> HubImage | list[HubImage]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return HubImage(self.rows, self.column, range(len(self))[index], self.origin)


def hub_parts(
    root: str, image_column: str | None = None, label_column: str | None = None
) -> dict[str, Samples]:
    """Lists the images of a data set by part: "train", perhaps "val", perhaps "test".

    Args:
        root: A folder of `save_to_disk` or of parquet files, or a name such as "owner/name".
        image_column: None takes the one that holds images.
        label_column: None takes the one that holds classes.

    Raises:
        UserError: no such data set, no such columns, or images without labels.
    """
    parts = _load(root)
    image = _find_image_column(parts["train"], image_column, root)
    label = _find_label_column(parts["train"], label_column, root)
    classes = _find_classes(parts["train"], label, root)
    samples = {}
    for name, rows in parts.items():
        labels = _read_labels(rows, label, classes, f"{root}, {name}")
        if labels is not None:
            images = _undecoded(rows, image, root)
            samples[name] = Samples(HubImages(images, image, f"{root}, {name}"), labels, classes)
        elif name != "test":  # many a test set is published without labels
            raise UserError(f"{root}: images of {name} have no label in column {label!r}")
    return samples


def _load(root: str) -> dict[str, Any]:
    """Returns the data sets by part."""
    datasets = require("datasets", "hf")
    path = Path(os.path.expanduser(root))
    if not path.exists() and not _HUB_NAME.fullmatch(root):
        raise UserError(f"{root}: no such folder, and no name of a data set on the hub")
    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    if path.exists() and not saved:
        _check_configuration(path)
    try:
        with _quiet(datasets):
            if saved:
                found = datasets.load_from_disk(str(path))
            else:
                found = datasets.load_dataset(str(path) if path.exists() else root)
    # Its readers have no closed set of errors.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{root}: cannot be read as a data set ({reason})") from error
    if not isinstance(found, dict):
        return {"train": found}
    parts = {_PARTS[name]: rows for name, rows in found.items() if name in _PARTS}
    if "train" not in parts:
        raise UserError(f"{root}: has {', '.join(found)}, but no part named train")
    return parts


def _check_configuration(folder: Path) -> None:
    """Refuses a folder whose card makes `datasets` read files that lie elsewhere.

    Raises:
        UserError: a card that names an address, or a path that leaves the folder; or a damaged one.
    """
    cards = [path for name in _CARDS if (path := folder / name).is_file()]
    for path in cards:
        try:
            text = path.read_text("utf-8")
            # As `datasets` finds it, so that both see the same.
            found = (
                DatasetCard(text).data.to_dict() if path.suffix == ".md" else load_yaml(text, "")
            )
        # Whatever a text leads to that is no card.
        except Exception as error:
            raise UserError(f"{path}: is no data set's card ({first_line(error)})") from error
        for name in _texts(found.get("configs") if isinstance(found, dict) else None):
            if is_address(name) or os.path.isabs(name) or ".." in re.split(r"[/\\]", name):
                raise UserError(
                    f"{path}: names files elsewhere ({name}); a data set's card does not decide "
                    "what is fetched or read outside of its folder"
                )


def _texts(value: Any) -> Iterator[str]:
    """Yields the texts in nested values, those that stand in several places once."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += [*item, *item.values()] if isinstance(item, dict) else item


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Hides progress bars where nobody watches."""
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
    """Returns the column that is asked for, or the only one that can be meant."""
    columns, key = list(rows.features), f"data.{what}_column"
    if wanted is not None and wanted not in columns:
        hint = nearest(wanted, columns) or f"; it has {', '.join(columns)}"
        raise UserError(f"{root}: no column {wanted!r}, as {key} says{hint}")
    if wanted is None and len(found) != 1:
        told = f"{' and '.join(found)} could be" if found else f"none of {', '.join(columns)} is"
        raise UserError(f"{root}: {told} the {what}; name the column: --{key} NAME")
    return wanted or found[0]


def _undecoded(rows: Any, column: str, root: str) -> Any:
    kind = require("datasets", "hf").Image(decode=False)
    try:
        return rows.select_columns([column]).cast_column(column, kind)
    # Whatever pyarrow says of other types.
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


def _read_labels(rows: Any, column: str, classes: list[str], origin: str) -> list[int] | None:
    """Returns the labels, or None where some are missing."""
    values = list(rows[column])
    if any(value in (None, -1) for value in values):
        return None
    if values and isinstance(values[0], int):
        labels = [int(value) for value in values]  # true and false are numbers, too
    else:
        numbers = {name: number for number, name in enumerate(classes)}
        labels = [numbers.get(value, -1) for value in values]
    for value, label in zip(values, labels, strict=True):
        if not 0 <= label < len(classes):
            raise UserError(f"{origin}: label {value!r} is none of the {len(classes)} classes")
    return labels
