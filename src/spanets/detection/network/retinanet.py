"""RetinaNet: dense detection with the focal loss (arXiv 1708.02002), on torchvision's classes."""

from typing import Any

from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from spanets.backbones.dense import DenseBackbone
from spanets.detection.network.anchors import ExactAnchors
from spanets.detection.network.batching import (
    Batching,
    Detection,
    Size,
    Target,
    check_finite,
    check_targets,
    detect_singly,
)
from spanets.detection.network.pyramid import FeaturePyramid
from spanets.detection.network.settings import Settings

BODY_STRIDES = (8, 16, 32)
STRIDES = (8, 16, 32, 64, 128)
SCALES = 3
RATIOS = (0.5, 1.0, 2.0)


class RetinaNet(TorchvisionRetinaNet):
    """RetinaNet with the settings of the paper's 1x runs.

    Losses are focal (γ 2, α 0.25) and L1, with matching at IoU 0.5 / 0.4. Anchors have three scales
    per octave from four times the stride and three ratios, at strides 8 to 128. Each head has four
    convolutions. Inference takes 1000 candidates per level, score 0.05, 100 detections.
    As in torchvision, losses are averaged over each image's positives, then over images.

    Args:
        body: A backbone with maps at strides 8, 16 and 32.
        classes: Number of classes without the background, which needs no logit.
        settings: Settings, of which `channels`, `anchor_scale` and `nms_iou` are used.
    """

    def __init__(self, body: DenseBackbone, classes: int, settings: Settings) -> None:
        anchors = make_anchors(settings.anchor_scale)
        per_location = anchors.num_anchors_per_location()[0]
        super().__init__(
            FeaturePyramid(body, settings, extra_convolutions=True),
            num_classes=classes,
            anchor_generator=anchors,
            head=_Head(settings.channels, per_location, classes),
            nms_thresh=settings.nms_iou,
            detections_per_img=100,
        )
        self.transform = Batching()

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
            targets: Targets, in training.
            sizes: Height and width to which boxes are scaled; by default those of the images.
            paste: Without effect, for the same signature as detectors with masks.
        """
        if not self.training:
            return detect_singly(self._detect, images, sizes)
        check_targets(targets, images)
        batch, _ = self.transform(images)
        maps = list(self.backbone(batch.tensors).values())
        outputs, anchors = self.head(maps), self.anchor_generator(batch, maps)
        return self.compute_loss(targets or [], outputs, anchors)

    def _detect(self, image: Tensor) -> Detection:
        """Returns the detections in an image (3, H, W)."""
        batch, _ = self.transform([image])
        maps = list(self.backbone(batch.tensors).values())
        outputs, anchors = self.head(maps), self.anchor_generator(batch, maps)
        check_finite(outputs.values())
        # (1, anchors of all levels, …) -> (1, anchors, …) per level
        counts = [x.shape[2] * x.shape[3] * len(RATIOS) * SCALES for x in maps]
        split = {name: list(value.split(counts, 1)) for name, value in outputs.items()}
        by_level = [list(of_image.split(counts)) for of_image in anchors]
        (found,) = self.postprocess_detections(split, by_level, batch.image_sizes)
        return found

    def compute_loss(
        self, targets: list[Target], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """Returns the losses; labels are shifted because torchvision's index the logits."""
        shifted = [{**target, "labels": target["labels"] - 1} for target in targets]
        losses = super().compute_loss(shifted, head_outputs, anchors)
        return {f"loss_{name}": value for name, value in losses.items()}

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[Size],
    ) -> list[Detection]:
        """Returns the detections with labels from 1."""
        found = super().postprocess_detections(head_outputs, anchors, image_shapes)
        return [{**one, "labels": one["labels"] + 1} for one in found]


class _Head(RetinaNetHead):
    """torchvision's head with float32 outputs, because boxes have more digits than float16."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: value.float() for name, value in super().forward(x).items()}


def make_anchors(scale: float) -> ExactAnchors:
    """Makes nine anchors for each position of the maps at strides 8 to 128.

    Args:
        scale: Side of the smallest anchor of each level, in strides.
    """
    scales = [scale * 2 ** (i / SCALES) for i in range(SCALES)]
    sizes = tuple(tuple(stride * factor for factor in scales) for stride in STRIDES)
    return ExactAnchors(sizes, (RATIOS,) * len(STRIDES))
