"""What is measured of a detector: COCO's average precisions, of boxes and of masks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch.distributed as dist
from torch import Tensor

from spanets.detection.coco.objects import CocoData, to_coco
from spanets.detection.coco.results import Result, to_results
from spanets_runtime.errors import UserError, require

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""In the order of COCO's summary: IoU 0.5 to 0.95, IoU 0.5, IoU 0.75, and by area in pixels, with
the bounds 32² and 96²."""


class DetectionMetrics:
    """Collects what was found in the images of a data set, and measures it.

    The result depends neither on the order of the images nor on how they are divided among
    batches and processes; an image that several processes have seen counts once.

    Args:
        data: The truth, with crowd regions.
        masks: Whether masks are measured as well.
        shared: Whether several processes have a share of the images each.

    Raises:
        UserError: the extra `detection` is not installed, or masks are asked for and an object
            has none.
    """

    def __init__(self, data: CocoData, masks: bool, shared: bool = False) -> None:
        require("faster_coco_eval", "detection")
        lacking = [a.id for i in data.images for a in i.annotations if a.segmentation is None]
        if masks and lacking:
            raise UserError(
                f"annotation {lacking[0]} has no segmentation, so masks cannot be measured "
                f"({len(lacking)} in all)"
            )
        self.data = data
        self.kinds = {"box": "bbox", "mask": "segm"} if masks else {"box": "bbox"}
        self.shared = shared
        self.results: dict[int, list[Result]] = {}

    def update(self, targets: Iterable[Mapping[str, Tensor]], found: Iterable[Any]) -> None:
        """Adds what was found in images.

        Args:
            targets: With "image_id".
            found: As for `to_results`.
        """
        for target, detections in zip(targets, found, strict=True):
            number = int(target["image_id"])
            self.results[number] = to_results(number, detections, self.data.category_ids)

    def compute(self) -> dict[str, float]:
        """Returns "box_ap" to "box_ap_large", and "mask_ap" and so on, of all processes' images.

        NaN where no object of the size exists.
        """
        gathered = self._gather()
        results = [result for number in sorted(gathered) for result in gathered[number]]
        values: dict[str, float] = {}
        for name, kind in self.kinds.items():
            measured = average_precisions(self.data, results, kind)
            values |= {f"{name}_{key}": value for key, value in measured.items()}
        return values

    def reset(self) -> None:
        """Forgets what was found."""
        self.results = {}

    def _gather(self) -> dict[int, list[Result]]:
        if not (self.shared and dist.is_available() and dist.is_initialized()):
            return self.results
        shares: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, self.results)
        return {number: found for share in shares for number, found in share.items()}


def average_precisions(data: CocoData, results: Sequence[Result], kind: str) -> dict[str, float]:
    """Measures results as COCO's own tools do, with at most 100 an image, by faster-coco-eval.

    Args:
        data: The truth. All its images are measured: what is found in none counts as missed.
        results: Of its images.
        kind: "bbox" or "segm". The size of a result is its mask's area for "segm", its box's else.

    Returns:
        A value for each of `NAMES`; NaN where no object of the size exists.
    """
    coco = require("faster_coco_eval", "detection")
    data, results = _renumber(data, results)
    # With a box, the library would take the box's area for the mask's.
    left_out = "bbox" if kind == "segm" else "segmentation"
    found = [{k: v for k, v in result.items() if k != left_out} for result in results]
    content = to_coco(data)
    truth = coco.COCO(content)
    # Versions before 1.8 cannot load an empty list, which a network that has not learnt yet finds.
    detections = truth.loadRes(found) if found else coco.COCO({**content, "annotations": []})
    evaluation = coco.COCOeval_faster(truth, detections, kind, print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = [float(value) for value in evaluation.stats[: len(NAMES)]]
    return {n: v if v >= 0 else math.nan for n, v in zip(NAMES, values, strict=True)}


def _renumber(data: CocoData, results: Sequence[Result]) -> tuple[CocoData, list[Result]]:
    """Returns both with images and classes numbered from 1, in the order of their own numbers.

    The library fails at negative ones. The order, which equal scores go by, is COCO's.
    """
    images = sorted(data.images, key=lambda image: image.id)
    image_ids = {image.id: number for number, image in enumerate(images, start=1)}
    category_ids = {old: number for number, old in enumerate(sorted(data.category_ids), start=1)}
    truth = replace(
        data,
        images=[replace(image, id=image_ids[image.id]) for image in images],
        category_ids=[category_ids[old] for old in data.category_ids],
    )
    found = [
        {
            **result,
            "image_id": image_ids[result["image_id"]],
            "category_id": category_ids[result["category_id"]],
        }
        for result in results
    ]
    return truth, found


def _silent(*_: Any) -> None:
    """Takes the place of the library's printing."""
