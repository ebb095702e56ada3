"""Pastes masks of boxes into images."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from spanets.detection.network.batching import Detection, Size


class PastedMasks:
    """Masks of an image's objects, probabilities (1, H, W) each, pasted one at a time.

    100 masks of a photograph of 12 megapixels would take 5 GB at once.

    Args:
        masks: Masks relative to the boxes, (N, 1, 28, 28).
        boxes: Boxes in pixels of the image, (N, 4).
        size: Height and width of the image.
    """

    def __init__(self, masks: Tensor, boxes: Tensor, size: Size) -> None:
        self.masks = masks
        self.boxes = boxes
        self.size = size

    def __iter__(self) -> Iterator[Tensor]:
        for mask, box in zip(self.masks, self.boxes, strict=True):
            yield paste_masks_in_image(mask[None], box[None], self.size)[0]

    def __getitem__(self, kept: Tensor) -> "PastedMasks":
        """Returns a selection by a boolean mask (N,)."""
        return PastedMasks(self.masks[kept], self.boxes[kept], self.size)


def paste_all(found: Detection, size: Size) -> Detection:
    """Returns the detections with masks, if any, pasted into an image of this size."""
    if "masks" not in found:
        return found
    return {**found, "masks": paste_masks_in_image(found["masks"], found["boxes"], size)}


def paste_lazily(found: Detection, size: Size) -> dict[str, Any]:
    """Returns the detections with `PastedMasks`, if they have masks."""
    if "masks" not in found:
        return dict(found)
    return {**found, "masks": PastedMasks(found["masks"], found["boxes"], size)}
