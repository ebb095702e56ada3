"""A folder an image, with one mask an object, as in the Data Science Bowl 2018 (DSB2018, nuclei).

stage1_train/0a1b/images/0a1b.png     the image
stage1_train/0a1b/masks/1.png         255 where the object is, else 0
stage1_train/0a1b/masks/2.png         the next object
"""

import os
from pathlib import Path

import numpy as np

from spanets.data.sources.parts import part_in
from spanets.formats.coco.rle import encode_runs
from spanets.formats.dataset import Collector, Dataset
from spanets_runtime.images import ImageError
from spanets_runtime.labels import load_labels
from spanets_runtime.listing import list_entries, list_images
from spanets_runtime.progress import progress

NAME = "a mask an object (DSB2018)"
LOOKED_FOR = "a folder an image, with images/ and masks/ inside"

_CLASS = "object"


def detect(root: Path) -> bool:
    """Whether the first folders of a folder, or of its parts, hold an image with its masks."""
    return root.is_dir() and any(map(_is_item, _first_items(root)))


def read(root: Path) -> Dataset:
    """Reads a data set; all objects are of one class.

    Raises:
        UserError: a mask cannot be read, or there are no images.
    """
    found = Collector(NAME, root, [_CLASS])
    found.notes.append(f"{root}: the masks have no classes; all objects are of class {_CLASS!r}")
    items = [(part, item) for part, folder in _parts(root) for item in _folders(folder)]
    for part, item in progress(items, "read masks"):
        _add(found, part, item)
    return found.finish()


def _add(found: Collector, part: str, item: Path) -> None:
    images = list_images(item / "images").images if os.path.isdir(item / "images") else []
    if len(images) != 1:
        found.count("folders without one image in images/, left out", item)
        return
    if not os.path.isdir(item / "masks"):
        found.count("images without a folder of masks, left out", item)
        return
    image = found.add_image(part, images[0])
    if image is None:
        return
    size = image["height"], image["width"]
    for path in list_images(item / "masks").images:
        pixels = load_labels(path) > 0
        if pixels.shape != size:
            raise ImageError(
                f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, but its image {images[0]} "
                f"has {size[1]}x{size[0]}"
            )
        if not np.any(pixels):
            found.count("masks without a pixel, left out", path)
            continue
        shape = {"size": list(size), "counts": encode_runs(pixels)}
        found.add_object(part, image, _CLASS, None, shape)


def _parts(root: Path) -> list[tuple[str, Path]]:
    """Returns the folders of parts, such as stage1_train; or the root as "train"."""
    named = [(part, folder) for folder in _folders(root) if (part := part_in(folder.name))]
    named = [(part, folder) for part, folder in named if not os.path.isdir(folder / "images")]
    return [(str(part), folder) for part, folder in named] or [("train", root)]


def _folders(root: Path) -> list[Path]:
    return sorted(root / entry.name for entry in list_entries(root) if entry.is_dir())


def _first_items(root: Path) -> list[Path]:
    return [item for _, folder in _parts(root) for item in _folders(folder)[:3]]


def _is_item(folder: Path) -> bool:
    inner = folder / "images", folder / "masks"
    return all(map(os.path.isdir, inner)) and len(list_images(inner[0]).images) == 1
