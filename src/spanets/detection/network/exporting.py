"""RetinaNet as one graph of fixed operators, for other runtimes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.boxes import clip_boxes_to_image

from spanets.detection.network.batching import PAD_TO
from spanets.detection.network.retinanet import STRIDES, RetinaNet
from spanets_runtime.errors import UsageError


class DenseRetinaNet(nn.Module):
    """All anchors' boxes and scores; choosing among them is left to the runtime.

    What `RetinaNet` does after this (1000 candidates a level above 0.05, NMS of each class at 0.5,
    100 detections) has sizes that depend on the image, which every runtime does in its own way.

    Args:
        detector: Its weights are shared.

    Attributes:
        output_names: Of what `forward` returns.
        size_step: Free sizes of exported graphs are multiples of it: only for these the strides
            that the anchors lie at do not depend on the size.
    """

    output_names = ("boxes", "scores")
    size_step = STRIDES[-1]

    def __init__(self, detector: RetinaNet) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.head
        self.grid_anchors = detector.anchor_generator.grid_anchors  # not called as a module
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
    """Returns the form of a detector that can be exported, in evaluation mode.

    Raises:
        UsageError: it is no RetinaNet; the others cut regions out in the midst of their work.
    """
    if not isinstance(detector, RetinaNet):
        raise UsageError(
            "of detectors only retinanet can be exported; of others the backbone: --features-only"
        )
    return DenseRetinaNet(detector).eval()
