"""torchvision's anchors in float32."""

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class ExactAnchors(AnchorGenerator):
    """Generates anchors in float32 for feature maps of any dtype.

    torchvision uses the dtype of the maps. bfloat16 rounds integers from 256 to multiples of 2, and
    from 1024 to multiples of 8, so that neighbouring anchors would coincide.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Returns the anchors of every image, (anchors, 4), in pixels."""
        exact = [m if m.dtype == torch.float32 else m.float() for m in feature_maps]
        return super().forward(image_list, exact)
