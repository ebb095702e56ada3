"""Masks of boxes, laid into their images."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from spanets.detection.network.batching import Detection, Size


class PastedMasks:
    """Masks of an image's objects, each (1, H, W), the probability of each pixel.

    Each is made when it is asked for: 100 of them in a photograph of 12 megapixels take 5 GB.

    Args:
        masks: Of the boxes, (N, 1, 28, 28).
        boxes: In pixels of the image, (N, 4).
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
        """Returns some of them, chosen by booleans (N,)."""
        return PastedMasks(self.masks[kept], self.boxes[kept], self.size)


def paste_all(found: Detection, size: Size) -> Detection:
    """Returns what was found, its masks laid into an image of this size, (N, 1, H, W)."""
    return {**found, "masks": paste_masks_in_image(found["masks"], found["boxes"], size)}


def paste_lazily(found: Detection, size: Size) -> dict[str, Any]:
    """Returns what was found, its masks, if it has any, to be laid into the image one by one."""
    if "masks" not in found:
        return dict(found)
    return {**found, "masks": PastedMasks(found["masks"], found["boxes"], size)}
