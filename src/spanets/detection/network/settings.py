"""Sizes of detectors; the defaults are those of the papers' COCO runs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from torch import nn

MAX_SIZE = 16384

NMS_IOU = 0.5
"""The papers' IoU above which the less likely of two objects of a class is dropped."""


@dataclass(frozen=True)
class Settings:
    """Sizes of a detector's parts; the defaults are the papers'.

    Smaller values suit small images and computers. With a small backbone, two thirds of Mask
    R-CNN's operations are in its heads, which process each sampled region.

    Attributes:
        channels: Channels of the feature pyramid and of convolutions in the heads.
        features: Features of the linear layers.
        regions: Regions sampled per image in training.
        proposals: Proposals kept per image; in evaluation at most 1000.
        anchor_scale: Side of the smallest anchor of each level, in strides.
        nms_iou: IoU above which the less likely of two objects of a class is dropped.
        box_convolutions: Number of 3×3 convolutions in the box head, before one linear layer. None
            takes the papers': two linear layers in Mask R-CNN, four convolutions and one linear
            layer in Cascade Mask R-CNN.
        norm_groups: Groups of a GroupNorm after the convolutions of the pyramid and the heads,
            for training from scratch (arXiv 1811.08883, section 3). None is no norm, as in the
            papers, whose backbones are pretrained.
        keypoints: Number of keypoints of an object, for Keypoint R-CNN; 17 are a person's in COCO.
        keypoint_convolutions: Number of 3×3 convolutions in Keypoint R-CNN's keypoint head.
        keypoint_channels: Channels of these.
    """

    channels: int = 256
    features: int = 1024
    regions: int = 512
    proposals: int = 1000
    anchor_scale: float = 8.0
    nms_iou: float = NMS_IOU
    box_convolutions: int | None = None
    norm_groups: int | None = None
    keypoints: int = 17
    keypoint_convolutions: int = 8
    keypoint_channels: int = 512

    def __post_init__(self) -> None:
        """Raises a ValueError for sizes out of range."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        for name, value in given.items():
            if not isinstance(value, int | float) or not 0 < value <= MAX_SIZE:
                raise ValueError(f"{name} is {value!r}, must be a number up to {MAX_SIZE}")
        if self.nms_iou > 1:
            raise ValueError(f"nms_iou is {self.nms_iou}, must be up to 1")
        if self.norm_groups and self.channels % self.norm_groups:
            raise ValueError(f"norm_groups is {self.norm_groups}, must divide {self.channels}")

    @property
    def norm_layer(self) -> Callable[[int], nn.Module] | None:
        """The function that makes a norm for a number of channels, or None."""
        return partial(nn.GroupNorm, self.norm_groups) if self.norm_groups else None


PAPERS = {
    "retinanet": Settings(anchor_scale=4.0),
    "mask_rcnn": Settings(),
    "cascade_mask_rcnn": Settings(proposals=2000),
    "keypoint_rcnn": Settings(),
}
"""The papers' settings by kind of detector; of Keypoint R-CNN, torchvision's."""

TEST_PROPOSALS = 1000
