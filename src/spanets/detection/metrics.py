"""Metrics of detection: COCO's average precisions of boxes, masks and keypoints."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from spanets.formats.coco.objects import CocoData, to_coco
from spanets.formats.coco.results import Result, to_results
from spanets_runtime.errors import UserError, require

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""Metrics in the order of COCO's summary: at IoU 0.5 to 0.95, at 0.5, at 0.75, and for small,
medium and large objects, with the bounds 32² and 96² pixels."""

KEYPOINT_NAMES = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar")
"""Metrics of keypoints, with OKS in place of IoU and 20 detections an image; the last is the
average recall. COCO does not measure keypoints of small objects."""

PERSON, SIGMA = 17, 0.05
"""Number of keypoints for which COCO gives standard deviations, and that of any others."""

_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
"""Where results hold what is measured."""


class DetectionMetrics:
    """Collects the detections of a data set, and computes the metrics.

    The result does not depend on the order of images, nor on their division into batches and
    processes. An image that several processes have seen counts once.

    Args:
        data: The ground truth, including crowd regions.
        masks: Whether to measure masks as well. Keypoints are measured if the data have some.
        shared: Whether several processes measure different images.
        sigma: Standard deviation of keypoints, see `oks_sigmas`.

    Raises:
        UserError: the extra `detection` is not installed, or masks are wanted and an object has
            none.
    """

    def __init__(
        self, data: CocoData, masks: bool, shared: bool = False, sigma: float | None = None
    ) -> None:
        require("faster_coco_eval", "detection")
        lacking = [a.id for i in data.images for a in i.annotations if a.segmentation is None]
        if masks and lacking:
            raise UserError(
                f"annotation {lacking[0]} has no segmentation, so masks cannot be measured "
                f"({len(lacking)} in all)"
            )
        self.data = data
        self.kinds = {"box": "bbox", **({"mask": "segm"} if masks else {})}
        self.sigmas: list[float] | None = None
        if data.keypoints is not None:
            self.kinds["keypoint"] = "keypoints"
            self.sigmas = oks_sigmas(len(data.keypoints.names), sigma)
        self.shared = shared
        self.results: dict[int, list[Result]] = {}

    def update(self, targets: Iterable[Mapping[str, Tensor]], found: Iterable[Any]) -> None:
        """Adds the detections of images.

        Args:
            targets: Targets of the images, with "image_id".
            found: Detections of each image; see `to_results`.
        """
        self.results.update(self.describe(targets, found))

    def describe(
        self, targets: Iterable[Mapping[str, Tensor]], found: Iterable[Any]
    ) -> dict[int, list[Result]]:
        """Returns the detections of images in COCO's format, by image id; see `update`."""
        numbers = (int(target["image_id"]) for target in targets)
        return {
            number: to_results(number, detections, self.data.category_ids)
            for number, detections in zip(numbers, found, strict=True)
        }

    def compute(self) -> dict[str, float]:
        """Returns "box_ap" to "box_ap_large", the same for "mask", and "keypoint_ap" to "_ar".

        Over all processes. A value is NaN if no object of that size exists.
        """
        return flatten(self.measure())

    def measure(self) -> dict[str, "Precisions"]:
        """Returns the precisions of "box" and perhaps "mask" or "keypoint", over all processes."""
        gathered = self._gather()
        results = [result for number in sorted(gathered) for result in gathered[number]]
        return {
            name: average_precisions(self.data, results, kind, self.sigmas)
            for name, kind in self.kinds.items()
        }

    def reset(self) -> None:
        """Removes all detections."""
        self.results = {}

    def _gather(self) -> dict[int, list[Result]]:
        if not (self.shared and dist.is_available() and dist.is_initialized()):
            return self.results
        shares: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, self.results)
        return {number: found for share in shares for number, found in share.items()}


@dataclass(frozen=True)
class Precisions:
    """COCO's average precisions by name, see `NAMES`; NaN if no object of that size exists.

    Attributes:
        overall: Means over the classes.
        by_class: The same for each class alone.
    """

    overall: dict[str, float]
    by_class: dict[str, dict[str, float]]


def flatten(measured: Mapping[str, Precisions]) -> dict[str, float]:
    """Returns the overall precisions as "box_ap", "mask_ap" and so on."""
    return {
        f"{name}_{key}": value
        for name, found in measured.items()
        for key, value in found.overall.items()
    }


def oks_sigmas(count: int, sigma: float | None) -> list[float] | None:
    """Returns the standard deviation of each keypoint, or None for COCO's own.

    Args:
        count: Number of keypoints.
        sigma: The value of all; None takes COCO's for a person, and `SIGMA` for others.
    """
    return None if sigma is None and count == PERSON else [sigma or SIGMA] * count


def average_precisions(
    data: CocoData, results: Sequence[Result], kind: str, sigmas: Sequence[float] | None = None
) -> Precisions:
    """Computes COCO's average precisions with faster-coco-eval.

    Of at most 100 results per image, and of 20 for keypoints.

    Args:
        data: The ground truth. In images without results, all objects count as missed.
        results: Results on its images.
        kind: "bbox", "segm" or "keypoints", which also decides whether the area of a result is that
            of its box, its mask, or the box around its keypoints.
        sigmas: Standard deviation of each keypoint; None takes COCO's of a person.
    """
    coco = require("faster_coco_eval", "detection")
    data, results = _renumber(data, results)
    # If masks or keypoints came with boxes, the library would use the area of the box.
    left_out = {"bbox", "segmentation", "keypoints", "keypoint_scores"} - {_FIELDS[kind]}
    found = [{k: v for k, v in result.items() if k not in left_out} for result in results]
    content = to_coco(data)
    truth = coco.COCO(content)
    # Versions before 1.8 cannot load an empty list, which an untrained network may produce.
    detections = truth.loadRes(found) if found else coco.COCO({**content, "annotations": []})
    own = {"kpt_oks_sigmas": list(sigmas)} if kind == "keypoints" and sigmas is not None else {}
    evaluation = coco.COCOeval_faster(truth, detections, kind, print_function=_silent, **own)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = KEYPOINT_NAMES if kind == "keypoints" else NAMES
    values = [float(value) for value in evaluation.stats[: len(names)]]
    overall = {n: v if v >= 0 else math.nan for n, v in zip(names, values, strict=True)}
    curves = (np.asarray(evaluation.eval[name]) for name in ("precision", "recall"))
    return Precisions(overall, _by_class(data, names, *curves))


def _by_class(
    data: CocoData,
    names: Sequence[str],
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
) -> dict[str, dict[str, float]]:
    """Returns the average precisions of each class.

    Args:
        data: The ground truth, whose category ids are 1, 2, and so on in some order.
        names: `NAMES` or `KEYPOINT_NAMES`.
        precision: Precision by IoU or OKS (0.5 to 0.95), recall, class in the order of ids, size
            (all, small unless for keypoints, medium, large) and number of detections; -1 without
            objects.
        recall: Recall by IoU or OKS, class, size and number of detections; likewise.
    """
    found = {}
    for name, number in zip(data.classes, data.category_ids, strict=True):
        curves = precision[:, :, number - 1, :, -1]  # (IoU, recall, size)
        parts = [curves[..., 0], curves[:1, :, 0], curves[5:6, :, 0]]
        parts += [curves[..., size] for size in range(1, curves.shape[-1])]
        parts += [recall[:, number - 1, 0, -1]] if "ar" in names else []
        known = [part[part > -1] for part in parts]
        values = [float(part.mean()) if part.size else math.nan for part in known]
        found[name] = dict(zip(names, values, strict=True))
    return found


def _renumber(data: CocoData, results: Sequence[Result]) -> tuple[CocoData, list[Result]]:
    """Renumbers images and classes from 1, because the library fails on negative ids.

    Keeps the order of ids, which COCO uses for equal scores.
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
    """Replaces the library's printing."""
