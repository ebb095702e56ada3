"""The recipe of object detection and instance segmentation."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from spanets.recipe.sections import DenseData, Model, Optim, Ranges, Recipe
from spanets_runtime.errors import UsageError


@dataclass
class DetectionData(DenseData):
    """Images with annotations in COCO's format, augmentation and preprocessing.

    Attributes:
        root: As in `DenseData`; the next four lie in it.
        train_images, val_images: Folders that the annotations' file names are relative to.
        train_annotations, val_annotations: JSON files.
        keep_empty: Train on images without objects as well.
        short_side: Of an image for evaluation, in pixels; larger and smaller ones are resized.
        long_side: The short side is less where the long one would exceed this.
        train_short_sides: Smallest and largest in training, drawn in steps of 32.
        train_crop: For half of the training images, first cut out a part of 384 to 600 pixels, of
            the image at a short side of 400, 500 or 600.
        workers, hflip, quarter_turns, recolour, mean, std: As in `DenseData`.
    """

    RANGES: ClassVar[Ranges] = {
        **DenseData.RANGES,
        "short_side": (32, 4096),
        "long_side": (32, 8192),
        "train_short_sides": (32, 4096),
    }

    train_images: str = "train2017"
    train_annotations: str = "annotations/instances_train2017.json"
    val_images: str = "val2017"
    val_annotations: str = "annotations/instances_val2017.json"
    keep_empty: bool = False
    short_side: int = 800
    long_side: int = 1333
    train_short_sides: tuple[int, int] = (800, 800)
    train_crop: bool = False

    def check(self) -> None:
        """Raises a UsageError for sides that are not in order."""
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
    """A backbone, and the detector on it.

    Attributes:
        name, args, weights, weights_ema: As in `Model`, of the backbone.
        head: "retinanet", "mask_rcnn" or "cascade_mask_rcnn".
        frozen_stages: So many first stages of the backbone keep their weights.
        channels, features, regions, proposals, anchor_scale, box_convolutions, norm_groups: Sizes
            of the detector's parts, see `detection.Settings`; None takes the papers'.
    """

    RANGES: ClassVar[Ranges] = {
        **Model.RANGES,
        "frozen_stages": (0, 4),
        "channels": (1, 4096),
        "features": (1, 16384),
        "regions": (1, 4096),
        "proposals": (1, 4096),
        "anchor_scale": (0.1, 100),
        "box_convolutions": (1, 16),
        "norm_groups": (1, 4096),
    }

    head: Literal["retinanet", "mask_rcnn", "cascade_mask_rcnn"] = "mask_rcnn"
    frozen_stages: int = 0
    channels: int | None = None
    features: int | None = None
    regions: int | None = None
    proposals: int | None = None
    anchor_scale: float | None = None
    box_convolutions: int | None = None
    norm_groups: int | None = None

    def sizes(self) -> dict[str, int | float]:
        """Returns those of the detector's sizes that are set."""
        names = (
            *("channels", "features", "regions", "proposals", "anchor_scale"),
            *("box_convolutions", "norm_groups"),
        )
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class DetectionOptim(Optim):
    """Optimizer, schedule and loss.

    Attributes:
        name, lr, lr_batch_size, batch_size, weight_decay, betas, clip_grad, ema_decay: As in
            `Optim`.
        layer_decay: Of SPANet, SPANetV2 and networks of the same names; by the rule of
            `tasks.detection.decay`.
        warmup_updates, warmup_epochs: Linear warm-up from `warmup_lr`; one of them is 0.
        milestones: Epochs after which the learning rate falls to a tenth.
        cooldown_epochs: Epochs after the others, at the last rate.
        min_lr, label_smoothing: Not used here, 0.
    """

    RANGES: ClassVar[Ranges] = {
        **Optim.RANGES,
        "milestones": (1, 10**6),
        "warmup_updates": (0, 10**8),
    }

    lr: float = 1e-4
    batch_size: int = 16
    weight_decay: float = 1e-4
    warmup_epochs: float = 0
    warmup_lr: float = 1e-7
    min_lr: float = 0.0
    milestones: tuple[int, int] = (8, 11)
    warmup_updates: int = 500

    def check(self) -> None:
        """Raises a UsageError for milestones that are not in order."""
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
