"""The recipe of semantic segmentation."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from spanets.recipe.sections import DenseData, Model, Optim, Ranges, Recipe
from spanets_runtime.errors import UsageError
from spanets_runtime.labels import MAX_NUMBER


@dataclass
class SegmentationData(DenseData):
    """Images with masks, augmentation and preprocessing.

    Attributes:
        layout: "folder" (`images/` and `masks/` under `root`) or "ade20k": `data.sources.masks`.
        root: As in `DenseData`.
        num_classes: How many there are, where no classes.txt names them.
        mask_values: What the numbers in masks stand for, where they are not the classes' own:
            "binary" for 0 and every other number, or the class of each number, by number or name,
            such as `{0: ground, 128: road, 255: ignore}`; None: 255 is ignored, all others are
            classes.
        val_fraction: Share of the images for validation where there is no `images/val`.
        split_seed: Seed of that split.
        resize: Short and long side, in pixels, that images are resized to fit: as large as
            neither is exceeded, width over height kept.
        scale: Random factor of that size in training.
        crop: Side of the square that training cuts out.
        crop_share: Largest share of it that one class may have, unless ten draws all have more.
        photometric: Distort brightness, contrast, saturation and hue.
        test: "whole" images, or windows that "slide".
        slide: Step and side of the sliding window, in pixels.
        workers, hflip, quarter_turns, recolour, mean, std: As in `DenseData`.
    """

    RANGES: ClassVar[Ranges] = {
        **DenseData.RANGES,
        "num_classes": (2, 255),
        "val_fraction": (0.001, 0.999),
        "split_seed": (0, 2**32 - 1),
        "resize": (32, 16384),
        "scale": (0.01, 10),
        "crop": (32, 4096),
        "crop_share": (0.01, 1),
        "slide": (32, 8192),
    }

    layout: Literal["folder", "ade20k"] = "folder"
    num_classes: int | None = None
    mask_values: Literal["binary"] | dict[int, int | str] | None = None
    val_fraction: float = 0.25
    split_seed: int = 0
    resize: tuple[int, int] = (512, 2048)
    scale: tuple[float, float] = (0.5, 2.0)
    crop: int = 512
    crop_share: float = 0.75
    photometric: bool = True
    test: Literal["whole", "slide"] = "whole"
    slide: tuple[int, int] = (341, 512)

    def check(self) -> None:
        """Raises a UsageError for values that are allowed each, but not together."""
        if self.mask_values is not None and self.layout != "folder":
            raise UsageError(f"data.mask_values does not go with data.layout {self.layout}")
        if isinstance(self.mask_values, dict):
            _check_numbers(self.mask_values)
        for key in ("scale", "resize", "slide"):
            first, second = getattr(self, key)
            if first > second:
                raise UsageError(
                    f"data.{key} is [{first}, {second}], the first must be the smaller"
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
    """Optimizer, schedule and loss, by updates.

    Attributes:
        name, lr, lr_batch_size, batch_size, weight_decay, betas, layer_decay: As in `Optim`.
        warmup_epochs, warmup_lr, min_lr, cooldown_epochs: As in `Optim`.
        clip_grad, label_smoothing, ema_decay: As in `Optim`.
        power: Of the polynomial that the learning rate falls by: `(1 - t / updates) ** power`.
        warmup_updates: Linear warm-up from `warmup_lr`, in place of `warmup_epochs`.
        stage_decay: Factor of the learning rate from each stage to the one before it, in place of
            `layer_decay`: that of stage i is `stage_decay ** (decay_layers - i)` of the head's.
        decay_layers: See there.
        auxiliary_weight: Of the auxiliary head's cross entropy.
    """

    RANGES: ClassVar[Ranges] = {
        **Optim.RANGES,
        "power": (0.01, 10),
        "warmup_updates": (0, 10**8),
        "stage_decay": (0.01, 1),
        "decay_layers": (4, 100),
        "auxiliary_weight": (0, 100),
    }

    lr: float = 2e-4
    batch_size: int = 16
    weight_decay: float = 1e-4
    warmup_epochs: float = 0
    min_lr: float = 0.0
    power: float = 0.9
    warmup_updates: int = 0
    stage_decay: float | None = None
    decay_layers: int = 4
    auxiliary_weight: float = 0.4


@dataclass
class SegmentationModel(Model):
    """A backbone, and the segmenter on it.

    Attributes:
        name, args, weights, weights_ema: As in `Model`, of the backbone.
        head: "semantic_fpn" or "upernet".
        head_args: Its arguments, such as `{channels: 512}`; see `segmentation.segmenter`.
        frozen_stages: So many first stages of the backbone keep their weights.
    """

    RANGES: ClassVar[Ranges] = {**Model.RANGES, "frozen_stages": (0, 4)}

    head: Literal["semantic_fpn", "upernet"] = "semantic_fpn"
    head_args: dict[str, Any] = field(default_factory=dict)
    frozen_stages: int = 0


@dataclass
class SegmentationRecipe(Recipe):
    """A run on images with masks."""

    task: Literal["segmentation"] = "segmentation"
    model: SegmentationModel = field(default_factory=SegmentationModel)
    data: SegmentationData = field(default_factory=SegmentationData)
    optim: SegmentationOptim = field(default_factory=SegmentationOptim)
