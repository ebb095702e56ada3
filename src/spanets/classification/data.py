"""Data loaders of image classification, from a recipe's data section.

A batch is `(images (B, 3, S, S), targets)`. Targets are labels (B,) or, with `data.soft_targets`,
probabilities (B, classes).
"""

import torch
from timm.data import Mixup

from spanets.classification.ordinal import order_classes
from spanets.classification.recipe import ClassificationData, ClassificationRecipe
from spanets.data.image_level.dataset import ImageDataset, make_image_loaders
from spanets.data.image_level.splits import read_splits
from spanets.data.image_level.tables import LEAVE_OUT
from spanets.data.loaders import Loaders
from spanets.data.run_data import RunData
from spanets.data.sampler import BalancedSampler, EpochSampler, ShardSampler
from spanets.data.samples import Samples
from spanets_runtime.errors import UsageError


def make_loaders(
    recipe: ClassificationRecipe,
    batch_size: int,
    processes: int = 1,
    run_data: RunData | None = None,
) -> Loaders:
    """Reads the data set of a recipe and makes its loaders.

    Args:
        recipe: The recipe.
        batch_size: Images in a batch of one process.
        processes: Number of processes that share the images.
        run_data: What the run recorded about its data.

    Raises:
        UserError: the data are missing or cannot be used; see `read_splits`.
    """
    data, parts = recipe.data, read_splits(recipe.data, run_data)
    if data.ordered is not None:
        parts = order_classes(parts, data.ordered, data.root)
    if data.soft_targets and parts["train"].targets is None:
        raise UsageError(
            "data.soft_targets is true, but this data set has labels only; set it to false"
        )
    trained, is_mixed = parts["train"], bool(data.mixup or data.cutmix)
    if is_mixed and trained.weights is not None:
        raise UsageError(
            f"{data.root}: its weights cannot be combined with data.mixup or data.cutmix; set them "
            f"to 0, or {LEAVE_OUT}"
        )
    return make_image_loaders(
        data,
        parts,
        _make_order(recipe, trained),
        lambda part: part.targets if data.soft_targets and part is trained else None,
        batch_size,
        processes,
        seed=recipe.seed,
        in_pairs=is_mixed,
    )


def count_classes(loaders: Loaders) -> list[int]:
    """Returns the number of training images of each class."""
    dataset = loaders.train.dataset
    assert isinstance(dataset, ImageDataset)
    labels = torch.as_tensor(dataset.unreadable.samples.labels)
    return torch.bincount(labels, minlength=len(loaders.classes)).tolist()


def _make_order(recipe: ClassificationRecipe, samples: Samples) -> EpochSampler:
    window = recipe.data.shuffle_shards
    if recipe.data.sampler == "balanced":
        if window is not None:
            raise UsageError("data.sampler balanced cannot be combined with data.shuffle_shards")
        return BalancedSampler(samples.labels, recipe.seed)
    if window is None:
        return EpochSampler(len(samples), shuffle=True, seed=recipe.seed)
    if samples.shards is None:
        raise UsageError("data.shuffle_shards is for data.source webdataset")
    return ShardSampler(samples.shards, window, recipe.seed)


def make_mixing(data: ClassificationData, label_smoothing: float, classes: int) -> Mixup | None:
    """Makes timm's Mixup and CutMix, or returns None if the recipe has neither.

    Raises:
        UsageError: the recipe combines mixing with soft targets.
    """
    if not data.mixup and not data.cutmix:
        return None
    if data.soft_targets:
        raise UsageError("data.soft_targets cannot be combined with data.mixup or data.cutmix")
    return Mixup(
        mixup_alpha=data.mixup,
        cutmix_alpha=data.cutmix,
        prob=data.mix_prob,
        switch_prob=data.mix_switch_prob,
        mode=data.mix_mode,
        label_smoothing=label_smoothing,
        num_classes=classes,
    )
