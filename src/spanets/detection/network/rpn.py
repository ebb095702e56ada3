"""The first stage of Mask R-CNN and Cascade Mask R-CNN: torchvision's region proposals."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from spanets.detection.network.anchors import ExactAnchors
from spanets.detection.network.batching import Size, check_finite
from spanets.detection.network.settings import TEST_PROPOSALS, Settings

STRIDES = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)


class ProposalNetwork(RegionProposalNetwork):
    """Proposes regions (arXiv 1506.01497, section 3), from three anchors per position.

    Matching is at IoU 0.7 / 0.3, and the loss is binary cross entropy on 256 sampled anchors per
    image, up to half of them positive. NMS at 0.7 gets four candidates per level for each kept
    proposal, but at most 2000 in training and 1000 in evaluation, as its time grows quadratically.

    Args:
        settings: Settings, of which `channels`, `proposals` and `anchor_scale` are used.
        beta: Threshold at which the boxes' smooth L1 loss becomes linear; 0 is L1.
    """

    def __init__(self, settings: Settings, beta: float) -> None:
        proposals = settings.proposals
        sizes = tuple((settings.anchor_scale * stride,) for stride in STRIDES)
        super().__init__(
            ExactAnchors(sizes, (RATIOS,) * len(STRIDES)),
            _Head(settings.channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={
                "training": min(4 * proposals, 2000),
                "testing": min(4 * proposals, TEST_PROPOSALS),
            },
            post_nms_top_n={"training": proposals, "testing": min(proposals, TEST_PROPOSALS)},
            nms_thresh=0.7,
        )
        self.beta = beta

    def filter_proposals(
        self, proposals: Tensor, objectness: Tensor, image_shapes: list[Size], counts: list[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the best proposals of each image, and their scores."""
        if not self.training:  # in training the loss becomes NaN, which is reported
            check_finite([objectness, proposals])
        return super().filter_proposals(proposals, objectness, image_shapes, counts)

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Returns the losses of objectness and boxes, each divided by the number of samples."""
        positives, negatives = (torch.cat(x) > 0 for x in self.fg_bg_sampler(labels))
        sampled = positives | negatives
        deltas, targets = pred_bbox_deltas[positives], torch.cat(regression_targets)[positives]
        boxes = F.smooth_l1_loss(deltas, targets, beta=self.beta, reduction="sum")
        scores = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled]
        )
        return scores, boxes / sampled.sum()


class _Head(RPNHead):
    """torchvision's head with float32 outputs, because boxes have more digits than float16."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [value.float() for value in logits], [value.float() for value in deltas]
