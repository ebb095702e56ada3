"""Exportable RetinaNet, for other runtimes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.boxes import clip_boxes_to_image

from spanets.detection.network.batching import PAD_TO
from spanets.detection.network.retinanet import STRIDES, RetinaNet
from spanets_runtime.errors import UsageError


class DenseRetinaNet(nn.Module):
    """A RetinaNet without postprocessing: returns boxes and scores of all anchors.

    The runtime does the postprocessing (1000 candidates per level above 0.05, NMS per class at 0.5,
    100 detections), whose tensor sizes depend on the image.

    Args:
        detector: The detector, whose weights are shared.

    Attributes:
        output_names: Names of the outputs.
        size_step: Dynamic sizes of exported graphs must be multiples of this, so that the strides
            of the anchors do not depend on the size.
    """

    output_names = ("boxes", "scores")
    size_step = STRIDES[-1]

    def __init__(self, detector: RetinaNet) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.head
        self.grid_anchors = detector.anchor_generator.grid_anchors  # a method, not a module
        self.coder = detector.box_coder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images (B, 3, H, W) to boxes (B, A, 4) in their pixels and scores (B, A, K)."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % PAD_TO, 0, -height % PAD_TO))
        maps = list(self.backbone(padded).values())
        outputs = self.head(maps)
        grids = [list(x.shape[2:]) for x in maps]
        strides = [[padded.shape[2] // rows, padded.shape[3] // cols] for rows, cols in grids]
        levels = self.grid_anchors(grids, strides)
        anchors = torch.cat(levels).expand(images.shape[0], -1, -1)  # (A, 4) -> (B, A, 4)
        deltas = outputs["bbox_regression"]
        boxes = self.coder.decode_single(deltas.flatten(0, 1), anchors.flatten(0, 1))
        clipped = clip_boxes_to_image(boxes, (height, width))
        return clipped.reshape(images.shape[0], -1, 4), outputs["cls_logits"].sigmoid()


def to_dense(detector: nn.Module) -> DenseRetinaNet:
    """Returns an exportable form of a detector, in evaluation mode.

    Raises:
        UsageError: it is not a RetinaNet; two-stage detectors cannot be exported.
    """
    if not isinstance(detector, RetinaNet):
        raise UsageError(
            "of detectors only retinanet can be exported; of others the backbone: --features-only"
        )
    return DenseRetinaNet(detector).eval()
