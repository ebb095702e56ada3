"""Predicts objects with a detector's checkpoint."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from spanets.detection import keypoints_of, nms_iou_of
from spanets.detection.network.batching import Detection
from spanets.detection.network.pasting import paste_lazily
from spanets.detection.overlay import draw_objects
from spanets.detection.record import OVERLAY, Record, find_taken
from spanets.detection.views import CUT, find_tiled
from spanets.formats.coco.numbering import Numbering
from spanets.formats.coco.reader import read_listing
from spanets.formats.coco.results import Result, to_results
from spanets.sources import ReadyModel, Source
from spanets_runtime.images import load_image
from spanets_runtime.listing import ImageSource
from spanets_runtime.pictures import free_name, identify, is_own, place_of, save_picture
from spanets_runtime.predict import ImagePrediction, predict_each
from spanets_runtime.windows import Tiling


@dataclass(frozen=True)
class ObjectPrediction(ImagePrediction):
    """The objects in an image.

    Attributes:
        image, error, was_read: See `ImagePrediction`.
        objects: "label", "score", "box" (x, y, width and height in pixels) and, from detectors with
            masks, "segmentation" (COCO's run lengths), or from those with keypoints, "keypoints"
            ("name", "x", "y" and "score" of each), in order of falling score.
        overlay: JPEG file of the image with the objects drawn on it, if one was written.
        cut: Number of objects that reach beyond a tile and may be incomplete; None without tiles.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    overlay: str | None = None
    cut: int | None = None

    def __str__(self) -> str:
        """Returns a readable line."""
        found = "  ".join(f"{one['label']} {one['score']:.3f}" for one in self.objects)
        picture = f"{self.overlay}  " if self.overlay else ""
        cut = f"  ({self.cut} at a tile's border, perhaps cut)" if self.cut else ""
        return f"{self.image}: {picture}{found or 'nothing'}{cut}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for example for JSON."""
        picture = {"overlay": self.overlay} if self.overlay else {}
        cut = {} if self.cut is None else {"cut": self.cut}
        return {"image": self.image, **picture, **cut, "predictions": self.objects}


class ObjectPredictor(ReadyModel):
    """A detector's checkpoint with its preprocessing and class names.

    Args:
        source: A checkpoint or its path.
        device: Name of a device; None means a GPU if there is one.
        tiling: Tiles in which to look for objects; None means whole images.

    Attributes:
        category_ids: Category ids of the classes in the training data set, or 1, 2, and so on
            if the checkpoint lacks them.
        keypoints: The keypoints that the detector predicts, or None.
        nms_iou: IoU above which two objects of a class are one.

    Raises:
        WeightsError: the checkpoint cannot be read.
        UserError: the preprocessing in it is damaged.
    """

    def __init__(
        self,
        source: Source | str | Path,
        device: str | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        super().__init__(source, device)
        self.tiling = tiling
        self.category_ids = category_ids_of(self.info.head, len(self.info.classes))
        self.keypoints = keypoints_of(self.info.head)
        self.nms_iou = nms_iou_of(self.info.head)

    def __call__(
        self,
        images: Iterable[ImageSource],
        out: Path | None = None,
        min_score: float = 0.5,
        annotations: Path | None = None,
    ) -> Iterator[ObjectPrediction]:
        """Yields the objects of each image, or an error for an image that cannot be used.

        Args:
            images: Image paths.
            out: A folder for NAME-overlay.jpg of each image, in the images' sub-folders, with a
                number if the name is taken; and for the files of `Record`, which also hold the
                objects below `min_score`.
            min_score: Smallest score of objects to yield and draw.
            annotations: A file in COCO's format that lists the images; `out` uses its image and
                category ids. None numbers the images from 1.

        Raises:
            UsageError: the folder holds files of these names that `predict` did not write.
            UserError: the folder cannot be written, or the annotations cannot be read.
        """
        numbering = None if annotations is None else Numbering(read_listing(annotations))
        record = Record(self.info.classes, self.category_ids, numbering, self.keypoints)
        images, place = list(images), None
        if out is not None:
            read = {identify(path) for path in images}
            place = partial(_place_overlay, out, find_taken(out), read)
        try:
            predict = partial(self._predict, min_score, record, place)
            yield from predict_each(images, predict, ObjectPrediction)
        finally:  # if an image fails, keep the results of the others
            if out is not None:
                record.write(out)

    def _predict(
        self,
        min_score: float,
        record: Record,
        place: Callable[[ImageSource], tuple[Path, str]] | None,
        source: ImageSource,
    ) -> ObjectPrediction:
        path, image = Path(source), load_image(source)
        number, found = record.number(path), self.find(image)
        chosen = choose(found, min_score)
        cut = int(chosen[CUT].sum()) if CUT in chosen else None
        if place is None:
            results = self._to_results(number, chosen)
            return ObjectPrediction(str(path), [self._describe(one) for one in results], cut=cut)
        results = self._to_results(number, found)
        overlay, name = place(source)
        save_picture(self.draw(image, found, min_score), overlay)
        record.add(path, number, image.size, results, name)
        likely = [self._describe(one) for one in results if one["score"] >= min_score]
        return ObjectPrediction(str(path), likely, str(overlay), cut=cut)

    def find(self, image: Image.Image) -> dict[str, Any]:
        """Returns the detections in an RGB image, in its pixels; masks are `PastedMasks`."""
        if self.tiling is None:
            found = self._find_whole(image)
        else:
            found = find_tiled(self._find_whole, image, self.tiling, self.nms_iou)
        return paste_lazily(found, (image.height, image.width))

    def draw(self, image: Image.Image, found: dict[str, Any], min_score: float) -> Image.Image:
        """Draws detections over an image; see `draw_objects`."""
        skeleton = self.keypoints.skeleton if self.keypoints else ()
        return draw_objects(image, found, self.info.classes, min_score, skeleton)

    @torch.inference_mode()
    def _find_whole(self, image: Image.Image) -> Detection:
        pixels, size = self.preprocess(image).to(self.device), (image.height, image.width)
        (found,) = self.model([pixels], sizes=[size], paste=False)
        return found

    def _describe(self, result: Result) -> dict[str, Any]:
        own = {name: result[name] for name in ("segmentation",) if name in result}
        if self.keypoints is not None:
            x, y = result["keypoints"][::3], result["keypoints"][1::3]
            points = zip(self.keypoints.names, x, y, result["keypoint_scores"], strict=True)
            keys = ("name", "x", "y", "score")
            own["keypoints"] = [dict(zip(keys, point, strict=True)) for point in points]
        return {
            "label": self.info.classes[result["category_id"] - 1],
            "score": result["score"],
            "box": result["bbox"],
            **own,
        }

    def _to_results(self, number: int, found: dict[str, Any]) -> list[Result]:
        """Returns results with the label of each object as its category id."""
        return to_results(number, found, range(1, 1 + len(self.info.classes)))


def choose(found: dict[str, Any], min_score: float) -> dict[str, Any]:
    """Returns the detections with at least this score, before any masks are pasted."""
    kept = found["scores"] >= min_score
    return {name: value[kept] for name, value in found.items()}


def category_ids_of(head: Mapping[str, Any], classes: int) -> list[int]:
    """Returns a checkpoint's category ids; earlier versions have none and count from 1."""
    ids: Any = head.get("category_ids")
    fits = isinstance(ids, list) and all(type(i) is int for i in ids) and len(set(ids)) == classes
    return list(ids) if fits else list(range(1, 1 + classes))


def _place_overlay(
    out: Path, taken: set[str], read: Collection[Any], image: ImageSource
) -> tuple[Path, str]:
    """Returns the path of an image's overlay, and its name relative to the folder.

    The path never belongs to an input image or to a file that `predict` did not write.

    Args:
        out: The output folder.
        taken: Names in it that are already taken; the new name is added.
        read: The input images, as keys of `identify`.
        image: The image.
    """
    while True:
        name = f"{free_name(place_of(image), taken)}{OVERLAY}"
        overlay = out / name
        is_there = identify(overlay) is not None
        is_replaced = is_there and overlay.parent != out and not is_own(overlay)
        if not is_replaced and (not is_there or identify(overlay) not in read):
            return overlay, name
