"""Writes the detections of many images as files in COCO's formats."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from spanets.formats.coco.keypoints import Keypoints
from spanets.formats.coco.numbering import Numbering
from spanets.formats.coco.results import Result, area_of_result
from spanets_runtime.errors import UsageError
from spanets_runtime.files import write_atomically
from spanets_runtime.images import ImageError

COCO_FILE = "predictions.json"
"""Name of the file with images, categories, and annotations with scores."""

RESULTS_FILE = "detections.json"
"""Name of the file with annotations only, for pycocotools' `loadRes` and COCO's server."""

OVERLAY = "-overlay.jpg"
"""Suffix of the overlays' names."""


class Record:
    """Collects detections, and writes `COCO_FILE` and `RESULTS_FILE`.

    Args:
        classes: The name of label 1, 2, and so on.
        category_ids: The category id of each class.
        numbering: Ids of an annotation file that lists the images; None numbers images from 1.
        keypoints: The keypoints of the objects, or None.
    """

    def __init__(
        self,
        classes: Sequence[str],
        category_ids: Sequence[int],
        numbering: Numbering | None,
        keypoints: Keypoints | None = None,
    ) -> None:
        self.numbering = numbering
        ids = numbering.category_ids(classes) if numbering else list(category_ids)
        named = keypoints.to_category() if keypoints else {}
        pairs = zip(ids, classes, strict=True)
        self.categories = [{"id": number, "name": name, **named} for number, name in pairs]
        self.images: list[dict[str, Any]] = []
        self.paths: dict[int, Path] = {}
        self.results: list[Result] = []

    def number(self, path: Path) -> int:
        """Returns the id of an image.

        Raises:
            ImageError: the annotation file does not list it, or another image has its id.
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
        """Adds an image and its detections.

        Args:
            path: Path of the image.
            number: Id of the image; see `number`.
            size: Width and height in pixels.
            found: Results, with the label of each object as its "category_id".
            overlay: Name of the image's overlay.
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
        """Returns the nearest common folder of the images, to which their names are relative."""
        parents = {str(path.absolute().parent) for path in self.paths.values()}
        return Path(os.path.commonpath(parents)) if parents else Path.cwd()

    def _name(self, number: int, folder: Path) -> str:
        path = self.paths[number]
        listed = self.numbering.find(path) if self.numbering else None
        return (listed.path if listed else path.absolute().relative_to(folder)).as_posix()


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def find_taken(out: Path) -> set[str]:
    """Returns the names, without suffix, of overlays in a folder that `predict` did not write.

    Overlays of an earlier call may be overwritten.

    Raises:
        UsageError: the folder holds a `COCO_FILE` or `RESULTS_FILE` that `predict` did not write.
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
    """Returns the images and annotations of a file, or None if there is none.

    For any other file, the result has an annotation without a score.
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
