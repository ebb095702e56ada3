"""Inputs and outputs of detectors, and batches of images of different sizes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torchvision.models.detection.transform import (
    GeneralizedRCNNTransform,
    resize_boxes,
    resize_keypoints,
)

from spanets_runtime.predict import check_answer

Detection = dict[str, Tensor]
"""torchvision's detections: boxes (N, 4) as x1, y1, x2, y2 in pixels, labels (N,), scores (N,) in
falling order; from detectors with masks, masks (N, 1, H, W) of probabilities; and from those with
keypoints, keypoints (N, K, 3) as x, y and 1, and keypoints_scores (N, K), logits of a heatmap."""

Target = dict[str, Tensor]
"""torchvision's targets: boxes (N, 4), labels (N,) from 1 and, with masks, masks (N, H, W) of 0 and
1 or `mask_bits`, the same with eight pixels in a byte (see `spanets.formats.coco.bits`); with
keypoints, keypoints (N, K, 3) as x, y and visibility, of which 0 gives no loss."""

Size = tuple[int, int]

PAD_TO = 32
"""Sides of a batch are padded to multiples of this, the largest stride."""


class Batching(GeneralizedRCNNTransform):
    """Pads images to one size, on the right and below.

    Disables torchvision's normalisation and resizing, because images are already preprocessed.
    """

    def __init__(self) -> None:
        super().__init__(0, 0, [], [], size_divisible=PAD_TO)

    def normalize(self, image: Tensor) -> Tensor:
        """Returns the image unchanged."""
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Returns image and target unchanged."""
        return image, target


def detect_singly(
    detect: Callable[[Tensor], Detection], images: Sequence[Tensor], sizes: Sequence[Size] | None
) -> list[Detection]:
    """Returns the detections of images that are processed one by one.

    In a batch, images are padded to the largest one. Padding changes the output of global filters,
    so that the detections in an image would depend on the other images.

    Args:
        detect: Maps an image (3, H, W) to its detections, in its pixels.
        images: Images of any size.
        sizes: Height and width to which boxes and keypoints are scaled; by default those of the
            images.
    """
    found = []
    for i, image in enumerate(images):
        one, own = detect(image), tuple(image.shape[-2:])
        size = sizes[i] if sizes else own
        resized = {"boxes": resize_boxes(one["boxes"], own, size)}
        if "keypoints" in one:
            resized["keypoints"] = resize_keypoints(one["keypoints"], own, size)
        found.append({**one, **resized})
    return found


def check_finite(answers: Iterable[Tensor]) -> None:
    """Refuses NaN and infinity in outputs, which would look like an image without objects.

    Raises:
        AnswerError: an output is not finite.
    """
    check_answer(all(bool(answer.isfinite().all()) for answer in answers))


def check_targets(targets: Sequence[Target] | None, images: Sequence[Tensor]) -> None:
    """Asserts that every image has a target, and that boxes have an area."""
    assert targets is not None, "training needs targets"
    assert len(targets) == len(images), f"{len(targets)} targets for {len(images)} images"
    for i, target in enumerate(targets):
        boxes = target["boxes"]
        assert boxes.shape == (len(target["labels"]), 4), f"target {i}: boxes are not (N, 4)"
        assert (boxes[:, 2:] > boxes[:, :2]).all(), f"target {i}: a box has no area"
        assert (target["labels"] > 0).all(), f"target {i}: labels start from 1"
