"""Converts detections to COCO's result format.

It is a list of `{"image_id", "category_id", "bbox": [x, y, width, height], "score",
"segmentation", "keypoints", "keypoint_scores"}`. "segmentation" exists only with masks, and holds
compressed run lengths. The last two exist only with keypoints: x, y and 1 of each in turn, as in
COCO's results, and the score of each.

Format: https://cocodataset.org/#format-results
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from spanets.formats.coco.objects import area_of, to_xywh
from spanets_runtime.errors import require

Result = dict[str, Any]

# Smallest probability of a pixel of an object.
MASK_THRESHOLD = 0.5


def to_results(
    image_id: int | str, found: Mapping[str, Any], category_ids: Sequence[int]
) -> list[Result]:
    """Converts the detections of an image to COCO's format, one entry per object.

    Args:
        image_id: Id in the annotation file, or any name without one.
        found: torchvision's detections in pixels of the image file: boxes (N, 4) as x1, y1, x2,
            y2, labels (N,) from 1, scores (N,), and possibly masks, probabilities (1, H, W) each,
            which are read one at a time (see `PastedMasks`), and keypoints (N, K, 3) as x, y and 1
            with keypoints_scores (N, K).
        category_ids: The category id of label 1, 2, and so on.

    Raises:
        UserError: there are masks, and the extra `detection` is not installed.
    """
    columns = [found[name].float().cpu().tolist() for name in ("boxes", "scores")]
    labels = found["labels"].tolist()
    results = [
        {
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": to_xywh(box),
            "score": score,
        }
        for label, box, score in zip(labels, *columns, strict=True)
    ]
    if "keypoints" in found:
        points, scores = (found[name].float().cpu() for name in ("keypoints", "keypoints_scores"))
        named = zip(results, points.flatten(1).tolist(), scores.tolist(), strict=True)
        results = [{**r, "keypoints": p, "keypoint_scores": s} for r, p, s in named]
    if "masks" not in found:
        return results
    shapes = map(_encode, found["masks"])
    return [{**r, "segmentation": shape} for r, shape in zip(results, shapes, strict=True)]


def area_of_result(result: Result) -> float:
    """Returns the area in pixels of a result's mask, or of its box without a mask."""
    if "segmentation" not in result:
        return result["bbox"][2] * result["bbox"][3]
    return float(area_of(result["segmentation"], *result["segmentation"]["size"]))


def _encode(mask: Tensor) -> dict[str, Any]:
    """Thresholds an object's probabilities (1, H, W), and returns compressed run lengths."""
    coco_mask = require("faster_coco_eval.core.mask", "detection")
    pixels = (mask[0] >= MASK_THRESHOLD).cpu().numpy()
    counts = coco_mask.encode(np.asfortranarray(pixels, np.uint8))["counts"]
    text = counts.decode() if isinstance(counts, bytes) else counts
    return {"size": list(pixels.shape), "counts": text}
