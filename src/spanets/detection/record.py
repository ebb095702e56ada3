"""What a detector found in many images, as files in COCO's formats."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from spanets.detection.coco.numbering import Numbering
from spanets.detection.coco.results import Result, area_of_result
from spanets_runtime.errors import UsageError
from spanets_runtime.files import write_atomically
from spanets_runtime.images import ImageError

COCO_FILE = "predictions.json"
"""A data set: images, categories, and annotations with scores."""

RESULTS_FILE = "detections.json"
"""The annotations alone, as pycocotools' `loadRes` and COCO's server take them."""

OVERLAY = "-overlay.jpg"
"""What the pictures' names end with."""


class Record:
    """Collects what was found in images, for `COCO_FILE` and `RESULTS_FILE`.

    Args:
        classes: Of label 1, 2, and so on.
        category_ids: Of these classes.
        numbering: That of a data set whose images they are; None numbers images from 1.
    """

    def __init__(
        self, classes: Sequence[str], category_ids: Sequence[int], numbering: Numbering | None
    ) -> None:
        self.numbering = numbering
        ids = numbering.category_ids(classes) if numbering else list(category_ids)
        self.categories = [{"id": i, "name": name} for i, name in zip(ids, classes, strict=True)]
        self.images: list[dict[str, Any]] = []
        self.paths: dict[int, Path] = {}
        self.results: list[Result] = []

    def number(self, path: Path) -> int:
        """Returns the number of an image.

        Raises:
            ImageError: the data set does not list it, or another image has its number.
        """
        if self.numbering is None:
            return len(self.images) + 1
        image, source = self.numbering.find(path), self.numbering.listing.source
        if image is None:
            raise ImageError(f"{path}: is not listed in {source}")
        if image.id in self.paths:
            raise ImageError(f"{path}: has the number {image.id} of {self.paths[image.id]}")
        return image.id

    def add(
        self, path: Path, number: int, size: tuple[int, int], found: list[Result], overlay: str
    ) -> None:
        """Adds an image and what was found in it.

        Args:
            path: Of the image.
            number: See `number`.
            size: Width and height.
            found: With the label of each object as its "category_id".
            overlay: Name of its picture.
        """
        self.paths[number] = path
        self.images.append({"id": number, "width": size[0], "height": size[1], "overlay": overlay})
        for result in found:
            category = self.categories[result["category_id"] - 1]["id"]
            self.results.append({**result, "image_id": number, "category_id": category})

    def write(self, out: Path) -> None:
        """Writes both files.

        Raises:
            UserError: they cannot be written.
        """
        results = [
            {"id": number, "iscrowd": 0, "area": area_of_result(result), **result}
            for number, result in enumerate(self.results, start=1)
        ]
        folder = self._folder()
        content = {
            "info": {"description": "found by spanets predict", "folder": str(folder)},
            "images": [
                {**image, "file_name": self._name(image["id"], folder)} for image in self.images
            ],
            "categories": self.categories,
            "annotations": results,
        }
        for name, value in ((COCO_FILE, content), (RESULTS_FILE, results)):
            text = (json.dumps(value) + "\n").encode()
            write_atomically(out / name, partial(_write, text))

    def _folder(self) -> Path:
        """Returns the folder that the images' names are relative to: the nearest that has all."""
        parents = {str(path.absolute().parent) for path in self.paths.values()}
        return Path(os.path.commonpath(parents)) if parents else Path.cwd()

    def _name(self, number: int, folder: Path) -> str:
        path = self.paths[number]
        listed = self.numbering.find(path) if self.numbering else None
        return (listed.path if listed else path.absolute().relative_to(folder)).as_posix()


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def find_taken(out: Path) -> set[str]:
    """Returns the names, without their ending, of pictures in a folder that are another's.

    Those that an earlier call has left there may be written over.

    Raises:
        UsageError: it holds a `COCO_FILE` or `RESULTS_FILE` of another's.
    """
    if not out.is_dir():
        return set()
    earlier = {name: _read(out / name) for name in (COCO_FILE, RESULTS_FILE)}
    for name, entries in earlier.items():
        if entries is not None and not all("score" in entry for entry in entries["annotations"]):
            raise UsageError(f"{out / name} is no earlier result of predict; choose another --out")
    images = (earlier[COCO_FILE] or {"images": []})["images"]
    own = {image.get("overlay") or f"{Path(image['file_name']).stem}{OVERLAY}" for image in images}
    pictures = {name for name in os.listdir(out) if name.endswith(OVERLAY)}
    return {name.removesuffix(OVERLAY) for name in pictures - own}


def _read(path: Path) -> dict[str, Any] | None:
    """Returns the images and annotations of a file, None if there is none.

    What is neither of our files has an annotation without a score.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        content = {"images": [], "annotations": content} if isinstance(content, list) else content
        found = {key: [dict(entry) for entry in content[key]] for key in ("images", "annotations")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {"images": [], "annotations": [{}]}
    return found
