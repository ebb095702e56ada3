"""The recipe of semantic segmentation."""

from dataclasses import dataclass, field
from typing import Any, Literal

from spanets.recipe.keys import key
from spanets.recipe.sections import DenseData, Model, Optim, Recipe
from spanets_runtime.errors import UsageError
from spanets_runtime.labels import MAX_NUMBER


@dataclass
class SegmentationData(DenseData):
    """Images with masks, augmentation and preprocessing."""

    layout: Literal["folder", "ade20k"] = key(
        "folder",
        "Layout of the data set: `images/` and `masks/` under `root`, or that of ADE20K.",
    )
    num_classes: int | None = key(
        None, "Number of classes, if no classes.txt names them.", between=(2, 255)
    )
    mask_values: Literal["binary"] | dict[int, int | str] | None = key(
        None,
        "Class of each mask value, by number or name, such as "
        "`{0: ground, 128: road, 255: ignore}`; binary for 0 and all other values. null: 255 is "
        "ignored, and the other values are class numbers.",
    )
    val_fraction: float = key(
        0.25,
        "Fraction of the images for validation, if there is no `images/val`.",
        between=(0.001, 0.999),
    )
    split_seed: int = key(0, "Random seed of that split.", between=(0, 2**32 - 1))
    resize: tuple[int, int] = key(
        (512, 2048),
        "Largest short and long side in pixels: images are resized to the largest size within "
        "both, keeping the aspect ratio.",
        between=(32, 16384),
    )
    scale: tuple[float, float] = key(
        (0.5, 2.0),
        "Range of the random factor on that size in training.",
        between=(0.01, 10),
    )
    crop: int = key(512, "Side of the square training crop, in pixels.", between=(32, 4096))
    crop_share: float = key(
        0.75,
        "Largest fraction of the crop that one class may cover; after ten draws the last is used.",
        between=(0.01, 1),
    )
    photometric: bool = key(True, "Distort brightness, contrast, saturation and hue in training.")
    test: Literal["whole", "slide"] = key("whole", "Evaluate whole images, or sliding windows.")
    slide: tuple[int, int] = key(
        (341, 512), "Step and side of the sliding window, in pixels.", between=(32, 8192)
    )

    def check(self) -> None:
        """Raises a UsageError for values that cannot be combined."""
        if self.mask_values is not None and self.layout != "folder":
            raise UsageError(f"data.mask_values does not go with data.layout {self.layout}")
        if isinstance(self.mask_values, dict):
            _check_numbers(self.mask_values)
        for name in ("scale", "resize", "slide"):
            first, second = getattr(self, name)
            if first > second:
                raise UsageError(
                    f"data.{name} is [{first}, {second}], the first must be the smaller"
                )


def _check_numbers(values: dict[int, int | str]) -> None:
    if not values:
        raise UsageError("data.mask_values is empty, must be such as {0: ground, 255: road}")
    for number in values:
        if not 0 <= number <= MAX_NUMBER:
            raise UsageError(
                f"data.mask_values has the number {number}, allowed: 0 to {MAX_NUMBER}"
            )


@dataclass
class SegmentationOptim(Optim):
    """Optimizer, schedule by updates, and loss."""

    lr: float = 2e-4
    batch_size: int = 16
    weight_decay: float = 1e-4
    warmup_epochs: float = 0
    min_lr: float = 0.0
    power: float = key(
        0.9,
        "Exponent of the polynomial schedule: `(1 - t / updates) ** power`.",
        between=(0.01, 10),
    )
    warmup_updates: int = key(
        0,
        "Updates of linear warm-up from `warmup_lr`, added to `warmup_epochs`.",
        between=(0, 10**8),
    )
    stage_decay: float | None = key(
        None,
        "Factor of the learning rate from each stage to the one before it, in place of "
        "`layer_decay`: stage i has `stage_decay ** (decay_layers - i)` times the head's rate. "
        "null is none.",
        between=(0.01, 1),
    )
    decay_layers: int = key(4, "Exponent in `stage_decay`.", between=(4, 100))
    auxiliary_weight: float = key(
        0.4, "Weight of the auxiliary head's cross entropy in the loss.", between=(0, 100)
    )


@dataclass
class SegmentationModel(Model):
    """The backbone and the segmenter."""

    head: Literal["semantic_fpn", "upernet"] = key("semantic_fpn", "Kind of the segmenter.")
    head_args: dict[str, Any] = key({}, "Arguments of the segmenter, such as `{channels: 512}`.")
    frozen_stages: int = key(
        0,
        "Number of frozen first stages of the backbone; the stem is frozen with them.",
        between=(0, 4),
    )


@dataclass
class SegmentationRecipe(Recipe):
    """A run on images with masks."""

    task: Literal["segmentation"] = "segmentation"
    model: SegmentationModel = field(default_factory=SegmentationModel)
    data: SegmentationData = field(default_factory=SegmentationData)
    optim: SegmentationOptim = field(default_factory=SegmentationOptim)
