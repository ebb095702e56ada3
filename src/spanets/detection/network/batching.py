"""What goes into a detector and comes out of it: images of many sizes as one batch, and back."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from spanets_runtime.predict import check_answer

Detection = dict[str, Tensor]
"""torchvision's: boxes (N, 4) as x1, y1, x2, y2 in pixels, labels (N,), scores (N,) in falling
order and, of detectors with masks, masks (N, 1, H, W), the probability of each pixel."""

Target = dict[str, Tensor]
"""torchvision's: boxes (N, 4), labels (N,) from 1 up and, for masks, masks (N, H, W) of 0 and 1, or
`mask_bits`, the same with eight pixels to a byte: see `spanets.detection.coco.bits`."""

Size = tuple[int, int]

PAD_TO = 32
"""Sides of a batch are multiples of the largest stride."""


class Batching(GeneralizedRCNNTransform):
    """Pads images to one size, to the right and below, and scales what was found as asked.

    torchvision's, which would also normalise and resize: images come here preprocessed.
    """

    def __init__(self) -> None:
        super().__init__(0, 0, [], [], size_divisible=PAD_TO)

    def normalize(self, image: Tensor) -> Tensor:
        """Returns the image, which is normalised."""
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Returns both as they are, of the size they are wanted in."""
        return image, target


def detect_singly(
    detect: Callable[[Tensor], Detection], images: Sequence[Tensor], sizes: Sequence[Size] | None
) -> list[Detection]:
    """Returns what is found in each image, which the other images have no part in.

    Padded to the largest of a batch, an image would look different to filters that see all of it,
    and what is found in it would depend on what it is batched with.

    Args:
        detect: From one image (3, H, W) to what is found in it, in its pixels.
        images: Each of any size.
        sizes: Height and width that boxes are scaled to; the images' own by default.
    """
    found = []
    for i, image in enumerate(images):
        one, own = detect(image), tuple(image.shape[-2:])
        boxes = resize_boxes(one["boxes"], own, sizes[i] if sizes else own)
        found.append({**one, "boxes": boxes})
    return found


def check_finite(answers: Iterable[Tensor]) -> None:
    """Refuses NaN and infinity in a detector's outputs: no object would pass the threshold.

    Raises:
        AnswerError: an output is not finite.
    """
    check_answer(all(bool(answer.isfinite().all()) for answer in answers))


def check_targets(targets: Sequence[Target] | None, images: Sequence[Tensor]) -> None:
    """Asserts that a target belongs to every image, and that its boxes have an area."""
    assert targets is not None, "training needs targets"
    assert len(targets) == len(images), f"{len(targets)} targets for {len(images)} images"
    for i, target in enumerate(targets):
        boxes = target["boxes"]
        assert boxes.shape == (len(target["labels"]), 4), f"target {i}: boxes are not (N, 4)"
        assert (boxes[:, 2:] > boxes[:, :2]).all(), f"target {i}: a box has no area"
        assert (target["labels"] > 0).all(), f"target {i}: labels start from 1"
