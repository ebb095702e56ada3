"""Two-stage detectors from torchvision's parts.

Mask R-CNN and Keypoint R-CNN (both arXiv 1703.06870), and Cascade Mask R-CNN (1906.09756).
"""

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)

from spanets.backbones.dense import DenseBackbone
from spanets.detection.network.batching import (
    Batching,
    Detection,
    Size,
    Target,
    check_targets,
    detect_singly,
)
from spanets.detection.network.heads import (
    BoxStage,
    CascadeHeads,
    KeypointBranch,
    MaskBranch,
    RegionPool,
)
from spanets.detection.network.pasting import paste_all
from spanets.detection.network.pyramid import FeaturePyramid
from spanets.detection.network.rpn import ProposalNetwork
from spanets.detection.network.settings import Settings
from spanets_runtime.errors import UsageError

POOLED = 7
STD = (0.1, 0.1, 0.2, 0.2)

CASCADE_CONVOLUTIONS = 4
CASCADE_IOU = (0.5, 0.6, 0.7)
CASCADE_WEIGHTS = (1.0, 0.5, 0.25)


class RegionDetector(nn.Module):
    """A two-stage detector: proposes regions, then predicts their classes, boxes, masks, keypoints.

    Args:
        backbone: A backbone with five maps at strides 4 to 64.
        rpn: The region proposal network.
        roi_heads: The heads of regions.
    """

    def __init__(
        self, backbone: FeaturePyramid, rpn: ProposalNetwork, roi_heads: CascadeHeads
    ) -> None:
        super().__init__()
        self.transform = Batching()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads

    def forward(
        self,
        images: list[Tensor],
        targets: list[Target] | None = None,
        sizes: list[Size] | None = None,
        paste: bool = True,
    ) -> Any:
        """Returns losses by name in training, or the detections of each image in evaluation.

        Args:
            images: Normalised images, (3, H, W) each, of any size.
            targets: Targets with masks or keypoints, in training.
            sizes: Height and width to which results are scaled; by default those of the images.
            paste: Whether to paste masks into images of these sizes, (N, 1, H, W). If not, masks
                are relative to the boxes, (N, 1, 28, 28), for `PastedMasks`.
        """
        if not self.training:
            found = detect_singly(self._detect, images, sizes)
            sizes = sizes or [(image.shape[-2], image.shape[-1]) for image in images]
            return [paste_all(*pair) for pair in zip(found, sizes, strict=True)] if paste else found
        check_targets(targets, images)
        batch, _ = self.transform(images)
        maps = self.backbone(batch.tensors)
        proposals, losses = self.rpn(batch, maps, targets)
        own = self.roi_heads.losses(maps, proposals, batch.image_sizes, targets or [])
        return {**losses, **own}

    def _detect(self, image: Tensor) -> Detection:
        """Returns the detections in an image (3, H, W), with masks relative to the boxes."""
        batch, _ = self.transform([image])
        maps = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, maps)
        (found,) = self.roi_heads.detect(maps, proposals, batch.image_sizes)
        return found


def make_mask_rcnn(body: DenseBackbone, classes: int, settings: Settings) -> RegionDetector:
    """Builds Mask R-CNN with L1 box losses.

    Args:
        body: A backbone with maps at strides 4 to 32.
        classes: Number of classes without the background.
        settings: Sizes of the parts; by default the box head is two linear layers on 7×7 regions.
    """
    # Parts are built in this order so that a seed gives the same weights as in earlier versions.
    stage, first = _single_stage(settings, classes), _first_stage(body, settings)
    return RegionDetector(*first, CascadeHeads([stage], [MaskBranch(settings, classes)], [1.0]))


def make_keypoint_rcnn(body: DenseBackbone, classes: int, settings: Settings) -> RegionDetector:
    """Builds Keypoint R-CNN: Mask R-CNN with a keypoint branch in place of the masks.

    Args:
        body: A backbone with maps at strides 4 to 32.
        classes: Number of classes without the background.
        settings: Sizes of the parts; by default those of torchvision.

    Raises:
        UsageError: `norm_groups` does not divide `keypoint_channels`.
    """
    groups, width = settings.norm_groups, settings.keypoint_channels
    if groups and width % groups:
        raise UsageError(f"norm_groups is {groups}, must divide keypoint_channels, {width}")
    stage, first = _single_stage(settings, classes), _first_stage(body, settings)
    return RegionDetector(*first, CascadeHeads([stage], [], [1.0], KeypointBranch(settings)))


def _single_stage(settings: Settings, classes: int) -> BoxStage:
    head: nn.Module = TwoMLPHead(settings.channels * POOLED**2, settings.features)
    if settings.box_convolutions:
        head = _box_head(settings, settings.box_convolutions)
    predictor = FastRCNNPredictor(settings.features, 1 + classes)
    return BoxStage(RegionPool(POOLED), head, predictor, 0.5, STD, giou=False, settings=settings)


def _first_stage(body: DenseBackbone, settings: Settings) -> tuple[FeaturePyramid, ProposalNetwork]:
    pyramid = FeaturePyramid(body, settings, extra_convolutions=False)
    return pyramid, ProposalNetwork(settings, beta=0)


def make_cascade_mask_rcnn(body: DenseBackbone, classes: int, settings: Settings) -> RegionDetector:
    """Builds Cascade Mask R-CNN with three stages and GIoU box losses of weight 10.

    Every stage has its own mask branch. This gives the published 734 GMACs of SPANetV2-S18
    (1280×800); a single branch would give 106 GMACs less.

    Args:
        body: A backbone with maps at strides 4 to 32.
        classes: Number of classes without the background.
        settings: Sizes of the parts; by default a box head is four convolutions and a linear layer.
    """
    stages = [
        BoxStage(
            RegionPool(POOLED),
            _box_head(settings, settings.box_convolutions or CASCADE_CONVOLUTIONS),
            FastRCNNPredictor(settings.features, 1 + classes),
            iou,
            [value / (i + 1) for value in STD],
            giou=True,
            settings=settings,
        )
        for i, iou in enumerate(CASCADE_IOU)
    ]
    return RegionDetector(
        FeaturePyramid(body, settings, extra_convolutions=False),
        ProposalNetwork(settings, beta=1 / 9),
        CascadeHeads(stages, [MaskBranch(settings, classes) for _ in stages], CASCADE_WEIGHTS),
    )


def _box_head(settings: Settings, convolutions: int) -> nn.Module:
    """Returns convolutions and a linear layer, (R, channels, 7, 7) to (R, features)."""
    shape = (settings.channels, POOLED, POOLED)
    layers = [settings.channels] * convolutions
    return FastRCNNConvFCHead(shape, layers, [settings.features], settings.norm_layer)
