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
    """RetinaNet of the paper's 1x runs: focal loss (γ 2, α 0.25) and L1, IoU 0.5 / 0.4.

    Three scales an octave from four times the stride, three ratios, strides 8 to 128, four
    convolutions a head; 1000 candidates a level, score 0.05, NMS at 0.5, 100 detections. Losses are
    averaged over each image's positives, then over the images, as torchvision has it.

    Args:
        body: With maps at strides 8, 16 and 32.
        classes: Without the background, for which a sigmoid a class needs no logit.
        settings: `channels` and `anchor_scale` are used.
    """

    def __init__(self, body: DenseBackbone, classes: int, settings: Settings) -> None:
        anchors = make_anchors(settings.anchor_scale)
        per_location = anchors.num_anchors_per_location()[0]
        super().__init__(
            FeaturePyramid(body, settings, extra_convolutions=True),
            num_classes=classes,
            anchor_generator=anchors,
            head=_Head(settings.channels, per_location, classes),
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
        """Returns losses by name when training, or what was found in each image by itself.

        Args:
            images: Normalised, each (3, H, W) of any size.
            targets: When training.
            sizes: Height and width that boxes are scaled to; the images' own by default.
            paste: As for detectors with masks; there are none here.
        """
        if not self.training:
            return detect_singly(self._detect, images, sizes)
        check_targets(targets, images)
        batch, _ = self.transform(images)
        maps = list(self.backbone(batch.tensors).values())
        outputs, anchors = self.head(maps), self.anchor_generator(batch, maps)
        return self.compute_loss(targets or [], outputs, anchors)

    def _detect(self, image: Tensor) -> Detection:
        """Returns what is found in an image (3, H, W)."""
        batch, _ = self.transform([image])
        maps = list(self.backbone(batch.tensors).values())
        outputs, anchors = self.head(maps), self.anchor_generator(batch, maps)
        check_finite(outputs.values())
        # (1, anchors of all levels, …) to one (1, anchors, …) a level
        counts = [x.shape[2] * x.shape[3] * len(RATIOS) * SCALES for x in maps]
        split = {name: list(value.split(counts, 1)) for name, value in outputs.items()}
        by_level = [list(of_image.split(counts)) for of_image in anchors]
        (found,) = self.postprocess_detections(split, by_level, batch.image_sizes)
        return found

    def compute_loss(
        self, targets: list[Target], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """Returns the losses; torchvision's labels index the logits."""
        shifted = [{**target, "labels": target["labels"] - 1} for target in targets]
        losses = super().compute_loss(shifted, head_outputs, anchors)
        return {f"loss_{name}": value for name, value in losses.items()}

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[Size],
    ) -> list[Detection]:
        """Returns what was found, with labels from 1 up."""
        found = super().postprocess_detections(head_outputs, anchors, image_shapes)
        return [{**one, "labels": one["labels"] + 1} for one in found]


class _Head(RetinaNetHead):
    """torchvision's, in float32 whatever the precision: boxes have more digits than a half."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: value.float() for name, value in super().forward(x).items()}


def make_anchors(scale: float) -> ExactAnchors:
    """Makes nine anchors for each place of the maps at strides 8 to 128.

    Args:
        scale: Side of the smallest anchor of each level, in strides.
    """
    scales = [scale * 2 ** (i / SCALES) for i in range(SCALES)]
    sizes = tuple(tuple(stride * factor for factor in scales) for stride in STRIDES)
    return ExactAnchors(sizes, (RATIOS,) * len(STRIDES))
