"""Images to objects, with a detector's checkpoint that says how."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from spanets.data.coco.results import Result, to_results
from spanets.data.detection import evaluation_transform
from spanets.detection import Detection
from spanets.detection.overlay import draw_objects
from spanets.predict.opened import OpenedCheckpoint
from spanets_runtime.files import write_atomically
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.listing import ImageSource
from spanets_runtime.pictures import free_name, place_of, save_picture

COCO_FILE = "predictions.json"


@dataclass(frozen=True)
class ObjectPrediction:
    """What was found in an image, or why nothing was.

    Attributes:
        image: Path.
        objects: "label", "score", "box" (x, y, width and height in pixels) and, of detectors with
            masks, "segmentation" (COCO's run lengths), the likeliest first.
        overlay: JPEG file of the image with the objects on it, if one was asked for.
        error: What is wrong with the image or the answer, or None.
        was_read: The image is not what is wrong.
    """

    image: str
    objects: list[dict[str, Any]] = field(default_factory=list)
    overlay: str | None = None
    error: str | None = None
    was_read: bool = True

    def __str__(self) -> str:
        """Returns a line for people."""
        found = "  ".join(f"{one['label']} {one['score']:.3f}" for one in self.objects)
        picture = f"{self.overlay}  " if self.overlay else ""
        return f"{self.image}: {picture}{found or 'nothing'}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for machines."""
        picture = {"overlay": self.overlay} if self.overlay else {}
        return {"image": self.image, **picture, "predictions": self.objects}


class ObjectPredictor(OpenedCheckpoint):
    """A detector's checkpoint with its preprocessing and class names.

    Args:
        checkpoint: Written by `spanets train`.
        device: None takes a GPU if there is one.

    Raises:
        WeightsError: an unreadable checkpoint.
        UserError: damaged preprocessing.
    """

    def __init__(self, checkpoint: str | Path, device: str | None = None) -> None:
        super().__init__(checkpoint, device)
        self.preprocess = evaluation_transform(self.card.preprocessing)

    def __call__(
        self, images: Iterable[ImageSource], out: Path | None = None, min_score: float = 0.5
    ) -> Iterator[ObjectPrediction]:
        """Yields what was found in each image; an unreadable one has its error.

        Args:
            images: Paths.
            out: A folder for NAME-overlay.jpg of each image, in sub-folders as the images are,
                numbered where names are alike, and
                `COCO_FILE` of all: a data set in COCO's format whose annotations have scores, those
                below `min_score` as well.
            min_score: Of the objects that are yielded and drawn.

        Raises:
            UserError: the folder cannot be written.
        """
        entries: list[dict[str, Any]] = []
        results: list[Result] = []
        taken: set[str] = set()
        for path in images:
            try:
                image = load_image(path)
            except ImageError as error:
                yield ObjectPrediction(str(path), error=str(error), was_read=False)
                continue
            found = self.find(image)
            number = len(entries) + 1
            size = {"width": image.width, "height": image.height}
            entries.append({"id": number, "file_name": str(path), **size})
            of_image = to_results(number, found, range(1, 1 + len(self.card.classes)))
            results += of_image
            overlay = None
            if out is not None:
                overlay = out / f"{free_name(place_of(path), taken)}-overlay.jpg"
                save_picture(draw_objects(image, found, self.card.classes, min_score), overlay)
            objects = [self._describe(one) for one in of_image if one["score"] >= min_score]
            yield ObjectPrediction(str(path), objects, str(overlay) if overlay else None)
        if out is not None:
            _write(self._to_coco(entries, results), out / COCO_FILE)

    @torch.inference_mode()
    def find(self, image: Image.Image) -> Detection:
        """Returns what is found in an RGB image, in its pixels."""
        pixels = self.preprocess(image).to(self.device)
        return self.model([pixels], sizes=[(image.height, image.width)])[0]

    def _describe(self, result: Result) -> dict[str, Any]:
        mask = {name: result[name] for name in ("segmentation",) if name in result}
        label = self.card.classes[result["category_id"] - 1]
        return {"label": label, "score": result["score"], "box": result["bbox"], **mask}

    def _to_coco(self, images: list[dict[str, Any]], results: list[Result]) -> dict[str, Any]:
        classes = enumerate(self.card.classes, start=1)
        return {
            "images": images,
            "categories": [{"id": number, "name": name} for number, name in classes],
            "annotations": [
                {"id": number, "iscrowd": 0, "area": result["bbox"][2] * result["bbox"][3]} | result
                for number, result in enumerate(results, start=1)
            ],
        }


def _write(content: dict[str, Any], path: Path) -> None:
    text = json.dumps(content) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
