"""The recipe of image classification."""

from dataclasses import dataclass, field
from typing import Literal

from spanets.data.image_level.recipe import ImageLevelData, ImageLevelOptim
from spanets.recipe.keys import key
from spanets.recipe.sections import Recipe
from spanets_runtime.errors import UsageError
from spanets_runtime.text import shorten


@dataclass
class ClassificationData(ImageLevelData):
    """Images, augmentation and preprocessing (timm's transforms and mixing)."""

    soft_targets: bool = key(
        False, "Train on the data set's probabilities instead of its labels (ELPV)."
    )
    mixup: float = key(0.0, "α of mixup; 0 leaves it out.", between=(0, 100))
    cutmix: float = key(0.0, "α of CutMix; 0 leaves it out.", between=(0, 100))
    mix_prob: float = key(1.0, "Probability that a batch is mixed.", between=(0, 1))
    mix_switch_prob: float = key(
        0.5, "Probability of CutMix in place of mixup if both are on.", between=(0, 1)
    )
    mix_mode: Literal["batch", "pair", "elem"] = key(
        "batch", "Mixing is drawn per batch, per pair of images, or per image (elem)."
    )

    sampler: Literal["random", "balanced"] = key(
        "random",
        "random draws every training image once an epoch; balanced draws each class equally often, "
        "so it repeats images of rare classes and leaves out some of frequent ones.",
    )

    ordered: list[str] | None = key(
        None,
        "The classes from the lowest to the highest rank, such as `[low, medium, high]`, which are "
        "then numbered in this order and measured by rank as well; null sorts them by name.",
    )

    def check(self) -> None:
        """Raises a UsageError for an order that cannot be used."""
        super().check()
        if self.ordered is None:
            return
        if len(set(self.ordered)) < max(2, len(self.ordered)):
            shown = shorten(", ".join(self.ordered))
            raise UsageError(f"data.ordered is [{shown}], must be two classes or more, each once")
        if self.soft_targets:
            raise UsageError("data.ordered cannot be combined with data.soft_targets")


@dataclass
class ClassificationOptim(ImageLevelOptim):
    """Optimizer, schedule and loss."""

    loss: Literal["cross_entropy", "focal", "ordinal"] = key(
        "cross_entropy",
        "Training loss; focal gives less weight to images that are already classified well; "
        "ordinal is the squared earth mover's distance (Hou et al., 2016) of `data.ordered`. "
        "Validation always reports the plain cross entropy.",
    )
    focal_gamma: float = key(2.0, "γ of the focal loss; 0 is the cross entropy.", between=(0, 100))
    class_weights: Literal["balanced", "effective"] | list[float] | None = key(
        None,
        "Weight of each class in the training loss: balanced is inverse to its number of images, "
        "effective to its effective number (Cui et al., 2019); or a list in the order of the "
        "classes. null weighs all images alike.",
        between=(0, 10**6),
    )
    effective_beta: float = key(
        0.999, "β of the effective number of images, (1 - βⁿ) / (1 - β).", between=(0, 0.999999)
    )


@dataclass
class Distill:
    """Knowledge distillation: the model also learns from the logits of a trained teacher."""

    teacher: str | None = key(
        None,
        "A checkpoint with the same classes, or the name of a timm model with published weights; "
        "null trains on the labels alone.",
    )
    weight: float = key(
        0.5,
        "Weight of the teacher's part of the loss; the labels have the rest.",
        between=(0, 1),
    )
    temperature: float = key(
        2.0, "Temperature that softens both distributions.", between=(0.01, 1000)
    )
    features: float = key(
        0.0,
        "Weight of an additional loss that makes pooled features like the teacher's, through a "
        "linear projection; 0 leaves it out.",
        between=(0, 1000),
    )


@dataclass
class ClassificationRecipe(Recipe):
    """A run on labelled images."""

    task: Literal["classification"] = "classification"
    data: ClassificationData = field(default_factory=ClassificationData)
    optim: ClassificationOptim = field(default_factory=ClassificationOptim)
    distill: Distill = field(default_factory=Distill)
