"""torchvision's anchors, as exact as their numbers."""

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class ExactAnchors(AnchorGenerator):
    """Anchors in float32 whatever the maps' number format.

    In bfloat16, which torchvision would take from the maps, whole numbers from 256 on are rounded
    to even ones, from 1024 on to multiples of 8: neighbours would fall together.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Returns the anchors of every image, (anchors, 4), in pixels."""
        exact = [m if m.dtype == torch.float32 else m.float() for m in feature_maps]
        return super().forward(image_list, exact)
