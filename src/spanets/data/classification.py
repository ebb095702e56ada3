"""Image classification: from a recipe's data section to loaders of batches.

A batch is `(images (B, 3, S, S), targets)`: targets are labels (B,) or, where the recipe asks for
the data set's probabilities, (B, classes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from timm.data import Mixup, create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spanets.data.elpv import elpv_splits
from spanets.data.folder import folder_splits
from spanets.data.images import load_image
from spanets.data.sampler import EpochSampler, isolated_seed
from spanets.data.samples import Samples
from spanets.errors import UsageError, UserError
from spanets.recipe import Data, Recipe

Transform = Callable[[Image.Image], Tensor]


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Decodes and transforms images; an index may be an `(epoch, index)` pair of `EpochSampler`.

    Args:
        samples: Files and labels.
        transform: From an RGB image to a tensor (3, S, S).
        soft_targets: Return the samples' probabilities in place of their labels.
        seed: All random draws for an image depend on (seed, epoch, index) alone.
    """

    def __init__(
        self,
        samples: Samples,
        transform: Transform,
        soft_targets: bool = False,
        seed: int = 0,
    ) -> None:
        if soft_targets and samples.targets is None:
            raise UsageError("data.soft_targets is true, but this data set has labels only")
        self.samples = samples
        self.transform = transform
        targets = samples.targets if soft_targets else samples.labels
        self.targets = torch.tensor(targets)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image = load_image(self.samples.images[index])
        with isolated_seed(self.seed, epoch, index):
            return self.transform(image), self.targets[index]


@dataclass(frozen=True)
class Loaders:
    """Loaders of one data set; `test` is None where it has no test part."""

    train: DataLoader[Any]
    val: DataLoader[Any]
    test: DataLoader[Any] | None
    classes: list[str]


def make_loaders(recipe: Recipe, per_device_batch: int) -> Loaders:
    """Reads the data set of a recipe and makes its loaders.

    Raises:
        UserError: no such data, or data that cannot be used; see `folder_splits`, `load_elpv`.
    """
    parts = read_splits(recipe.data)
    data = recipe.data
    workers = data.workers
    train_set = ImageDataset(parts["train"], train_transform(data), data.soft_targets, recipe.seed)
    # Batch-mixing pairs each image with another, and a last batch of one has no variance.
    drop_last = len(train_set) >= per_device_batch
    train = DataLoader(
        train_set,
        batch_size=per_device_batch,
        sampler=EpochSampler(len(train_set), shuffle=True, seed=recipe.seed),
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
    )
    preprocessing = preprocessing_of(data)
    val, test = (
        evaluation_loader(parts[part], preprocessing, per_device_batch, workers)
        if part in parts
        else None
        for part in ("val", "test")
    )
    assert val is not None
    return Loaders(train, val, test, parts["train"].classes)


def evaluation_loader(
    samples: Samples, preprocessing: dict[str, Any], batch_size: int, workers: int
) -> DataLoader[Any]:
    """Loads images in order, each once, with labels for targets."""
    dataset = ImageDataset(samples, create_transform(**preprocessing))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


def read_splits(data: Data) -> dict[str, Samples]:
    """Lists the images of a recipe's data section: "train", "val" and perhaps "test".

    Raises:
        UserError: no such data, or data that cannot be used.
    """
    if data.source == "elpv":
        return elpv_splits(data.val_fraction, data.split_seed)
    if data.root is None:
        raise UsageError(
            "data.root is not set; give the folder of your images, one sub-folder a class: "
            "--data.root DIR"
        )
    return folder_splits(data.root, data.val_fraction, data.split_seed)


def map_classes(samples: Samples, classes: list[str]) -> Samples:
    """Renumbers labels for a model with these classes.

    Raises:
        UserError: the samples have a class that the model does not know.
    """
    unknown = [name for name in samples.classes if name not in classes]
    if unknown:
        raise UserError(
            f"classes {', '.join(unknown)} are not among the checkpoint's: {', '.join(classes)}"
        )
    labels = [classes.index(samples.classes[label]) for label in samples.labels]
    return Samples(samples.images, labels, classes)


def train_transform(data: Data) -> Transform:
    """Makes the random transform of training, timm's."""
    return create_transform(
        data.image_size,
        is_training=True,
        scale=tuple(data.scale),
        ratio=tuple(data.ratio),
        hflip=data.hflip,
        vflip=data.vflip,
        color_jitter=data.color_jitter or None,
        auto_augment=data.auto_augment,
        interpolation=data.train_interpolation,
        mean=tuple(data.mean),
        std=tuple(data.std),
        re_prob=data.random_erasing,
        re_mode=data.erasing_mode,
    )


def preprocessing_of(data: Data) -> dict[str, Any]:
    """Returns the arguments of `timm.data.create_transform` for evaluation, as plain values."""
    return {
        "input_size": [3, data.image_size, data.image_size],
        "crop_pct": data.crop_pct,
        "interpolation": data.interpolation,
        "mean": list(data.mean),
        "std": list(data.std),
    }


def make_mixing(data: Data, label_smoothing: float, classes: int) -> Mixup | None:
    """Makes timm's Mixup and CutMix, or None where the recipe has neither.

    Raises:
        UsageError: mixing together with soft targets.
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
