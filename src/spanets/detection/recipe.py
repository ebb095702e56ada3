"""The recipe of object detection, instance segmentation and keypoints."""

from dataclasses import dataclass, field
from typing import Literal

from spanets.recipe.keys import key
from spanets.recipe.sections import DenseData, Model, Optim, Recipe
from spanets_runtime.errors import UsageError


@dataclass
class DetectionData(DenseData):
    """Images with annotations in COCO's format, augmentation and preprocessing."""

    root: str | None = key(
        None,
        "Folder of the data set, with the image folders and annotation files below, or in another "
        "format that `spanets convert` reads.",
    )
    train_images: str = key("train2017", "Folder of the training images.")
    train_annotations: str = key(
        "annotations/instances_train2017.json", "JSON file of the training annotations."
    )
    val_images: str = key("val2017", "Folder of the validation images.")
    val_annotations: str = key(
        "annotations/instances_val2017.json", "JSON file of the validation annotations."
    )
    keep_empty: bool = key(False, "Train on images without objects as well.")
    short_side: int = key(
        800,
        "Length to which the shorter side is resized in evaluation, in pixels.",
        between=(32, 4096),
    )
    long_side: int = key(
        1333,
        "Largest length of the longer side in pixels; images that would exceed it are resized to "
        "it.",
        between=(32, 8192),
    )
    train_short_sides: tuple[int, int] = key(
        (800, 800),
        "Range of the random short side in training, in pixels, in steps of 32.",
        between=(32, 4096),
    )
    train_crop: bool = key(
        False,
        "First resize half of the training images to a short side of 400, 500 or 600 pixels, and "
        "crop sides of 384 to 600.",
    )

    keypoint_sigma: float | None = key(
        None,
        "Standard deviation σ of annotated keypoints in COCO's OKS, as a fraction of the root of "
        "the object's area, for the metrics; null is COCO's 17 values for 17 keypoints, else 0.05.",
        between=(1e-3, 10),
    )

    def check(self) -> None:
        """Raises a UsageError for sides in the wrong order."""
        first, last = self.train_short_sides
        if first > last:
            raise UsageError(
                f"data.train_short_sides is [{first}, {last}], the first must be the smaller"
            )
        if max(last, self.short_side) > self.long_side:
            raise UsageError(
                f"data.long_side is {self.long_side}, less than a short side of "
                f"{max(last, self.short_side)}"
            )


@dataclass
class DetectionModel(Model):
    """The backbone and the detector."""

    head: Literal["retinanet", "mask_rcnn", "cascade_mask_rcnn", "keypoint_rcnn"] = key(
        "mask_rcnn", "Kind of the detector."
    )
    frozen_stages: int = key(
        0,
        "Number of frozen first stages of the backbone; the stem is frozen with them.",
        between=(0, 4),
    )
    channels: int | None = key(
        None,
        "Channels of the feature pyramid and of convolutions in the heads; null is 256.",
        between=(1, 4096),
    )
    features: int | None = key(
        None, "Features of the heads' linear layers; null is 1024.", between=(1, 16384)
    )
    regions: int | None = key(
        None, "Regions sampled per image in training; null is 512.", between=(1, 4096)
    )
    proposals: int | None = key(
        None,
        "Regions proposed per image, at most 1000 in evaluation; null is 1000 for mask_rcnn, 2000 "
        "for cascade_mask_rcnn.",
        between=(1, 4096),
    )
    anchor_scale: float | None = key(
        None,
        "Side of the smallest anchor of each level, in strides; null is 4 for retinanet, 8 for the "
        "others.",
        between=(0.1, 100),
    )
    nms_iou: float | None = key(
        None,
        "IoU of boxes above which the less likely of two objects of a class is dropped; a larger "
        "one is for objects that overlap. null is 0.5.",
        between=(0.01, 1),
    )
    box_convolutions: int | None = key(
        None,
        "3×3 convolutions in the box head, before one linear layer; null is two linear layers in "
        "mask_rcnn, four convolutions in cascade_mask_rcnn.",
        between=(1, 16),
    )
    norm_groups: int | None = key(
        None,
        "Groups of a GroupNorm after the convolutions of the pyramid and the heads, for training "
        "from scratch; null is no norm.",
        between=(1, 4096),
    )
    keypoint_convolutions: int | None = key(
        None,
        "3×3 convolutions in the keypoint head of keypoint_rcnn; null is 8.",
        between=(1, 16),
    )
    keypoint_channels: int | None = key(
        None, "Channels of these convolutions; null is 512.", between=(1, 4096)
    )

    def sizes(self) -> dict[str, int | float]:
        """Returns the sizes of the detector that are not null."""
        names = (
            *("channels", "features", "regions", "proposals", "anchor_scale", "nms_iou"),
            *("box_convolutions", "norm_groups", "keypoint_convolutions", "keypoint_channels"),
        )
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class DetectionOptim(Optim):
    """Optimizer, schedule and loss."""

    lr: float = 1e-4
    batch_size: int = 16
    weight_decay: float = 1e-4
    layer_decay: float | None = key(
        None,
        "Factor of the learning rate from each layer of the backbone to the one before it, as "
        "defined in `detection.decay`; null is none.",
    )
    warmup_epochs: float = key(
        0, "Epochs of linear warm-up from `warmup_lr`; must be 0 if `warmup_updates` is not."
    )
    warmup_lr: float = 1e-7
    min_lr: float = key(0.0, "Not used in detection.")
    cooldown_epochs: int = key(0, "Epochs at the last learning rate after `trainer.epochs`.")
    label_smoothing: float = key(0.0, "Not used in detection.")
    milestones: tuple[int, int] = key(
        (8, 11), "Epochs after which the learning rate drops to a tenth.", between=(1, 10**6)
    )
    warmup_updates: int = key(
        500,
        "Updates of linear warm-up from `warmup_lr`; must be 0 if `warmup_epochs` is not.",
        between=(0, 10**8),
    )

    def check(self) -> None:
        """Raises a UsageError for milestones in the wrong order."""
        first, second = self.milestones
        if first >= second:
            raise UsageError(
                f"optim.milestones is [{first}, {second}], the first must be the smaller"
            )


@dataclass
class DetectionRecipe(Recipe):
    """A run on images with annotated objects."""

    task: Literal["detection"] = "detection"
    model: DetectionModel = field(default_factory=DetectionModel)
    data: DetectionData = field(default_factory=DetectionData)
    optim: DetectionOptim = field(default_factory=DetectionOptim)
