"""Data loaders of image classification, from a recipe's data section.

A batch is `(images (B, 3, S, S), targets)`. Training images are uint8, a quarter of the bytes of
float32, until `standardize` converts them on the device. Evaluation images are standardized as in
`predict`. Targets are labels (B,) or, with `data.soft_targets`, probabilities (B, classes).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import posterize
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import normalize
from tqdm import tqdm

from spanets.classification.recipe import ClassificationData, ClassificationRecipe
from spanets.classification.tables import source_of, table_splits
from spanets.data.loaders import Loaders, RankSampler, make_loader, ordered_loader
from spanets.data.run_data import RunData
from spanets.data.sampler import (
    BalancedSampler,
    EpochSampler,
    ShardSampler,
    isolated,
    seed_sample,
)
from spanets.data.samples import Samples
from spanets.data.sources.elpv import elpv_splits
from spanets.data.sources.folder import folder_parts, names_in, part_folders
from spanets.data.sources.hub import hub_parts
from spanets.data.sources.runs_among_images import refuse_inside
from spanets.data.sources.shards import read_shards
from spanets.data.splits import list_split, split_parts
from spanets.data.unreadable import Unreadable, collate_readable, draw_replacement
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import quiet_decoder
from spanets_runtime.preprocessing import Preprocessing, short_side

Sample = tuple[Tensor, ...]
Transform = Callable[[Image.Image], Tensor]

# What `data.root` must name, by `data.source`.
_ROOTS = {
    "folder": "the folder of your images, one sub-folder a class: --data.root DIR",
    "table": "the table of your images: --data.root labels.csv",
    "webdataset": "a folder of shards or a pattern: --data.root 'shards/{train,val}-*.tar'",
    "hf": "a folder of save_to_disk or parquet files, or a name on the hub: --data.root OWNER/NAME",
}


class ImageDataset(Dataset[Sample | None]):
    """Decodes and transforms images; an index may be an `(epoch, index)` pair of `EpochSampler`.

    Args:
        samples: Images and labels.
        transform: Maps an RGB image to a tensor (3, S, S).
        soft_targets: Whether targets are the samples' probabilities instead of labels.
        seed: Seed; random draws for an image depend on (seed, epoch, index) alone.
        max_unreadable: Fraction of the images that may be unreadable.
        replace: Whether to replace an unreadable image by another; if not, its sample is None.
        short_side: See `Unreadable`.
        weighted: Whether a sample has its image's weight as third item, if there are weights.

    Attributes:
        unreadable: The unreadable images found so far.
    """

    def __init__(
        self,
        samples: Samples,
        transform: Transform,
        soft_targets: bool = False,
        seed: int = 0,
        max_unreadable: float = 0.0,
        replace: bool = False,
        short_side: int | None = None,
        weighted: bool = False,
    ) -> None:
        if soft_targets and samples.targets is None:
            raise UsageError(
                "data.soft_targets is true, but this data set has labels only; set it to false"
            )
        self.unreadable = Unreadable(samples, max_unreadable, short_side)
        self.transform = transform
        targets = samples.targets if soft_targets else samples.labels
        self.targets = torch.tensor(targets)
        given = samples.weights if weighted else None
        self.weights = None if given is None else torch.tensor(given)
        self.seed = seed
        self.replace = replace

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample | None:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Sample | None]:
        """Returns the samples of a batch; torch's loader calls this."""
        with isolated(), quiet_decoder():
            return [
                self._draw(*key) if isinstance(key, tuple) else self._draw(0, key) for key in keys
            ]

    def _draw(self, epoch: int, index: int) -> Sample | None:
        image, taken = self._load(epoch, index)
        if image is None:
            return None
        seed_sample(self.seed, epoch, index)
        if self.weights is None:
            return self.transform(image), self.targets[taken]
        return self.transform(image), self.targets[taken], self.weights[taken]

    def name(self, index: int) -> str:
        """Returns the name of an image, for messages."""
        return str(self.unreadable.samples.images[index])

    def _load(self, epoch: int, index: int) -> tuple[Image.Image | None, int]:
        """Returns an image and its index, or those of a replacement."""
        taken, attempt = index, 0
        while True:
            image = self.unreadable.load(taken)
            if image is not None or not self.replace:
                return image, taken
            attempt += 1
            taken = draw_replacement(self.seed, epoch, index, attempt, len(self))


def make_loaders(
    recipe: ClassificationRecipe,
    batch_size: int,
    processes: int = 1,
    run_data: RunData | None = None,
) -> Loaders:
    """Reads the data set of a recipe and makes its loaders.

    The last training batch of an epoch is dropped if it is not full. A data set smaller than a
    batch gives one smaller batch.

    Args:
        recipe: The recipe.
        batch_size: Images in a batch of one process.
        processes: Number of processes that share the images.
        run_data: What the run recorded about its data.

    Raises:
        UserError: the data are missing or cannot be used; see `read_splits`.
    """
    data, parts = recipe.data, read_splits(recipe.data, run_data)
    train_set = ImageDataset(
        parts["train"],
        train_transform(data),
        data.soft_targets,
        recipe.seed,
        data.max_unreadable,
        replace=True,
        short_side=short_side(data.image_size, data.crop_pct),
        weighted=True,
    )
    size = min(batch_size, len(train_set) // processes)
    if data.mixup or data.cutmix:
        size -= size % 2  # images are mixed in pairs
    if size < 1:
        raise UserError(f"{len(train_set)} training images are too few for {processes} devices")
    share = RankSampler(_make_order(recipe, parts["train"]), processes, False)
    val = evaluation_loader(
        parts["val"],
        preprocessing_of(data),
        batch_size,
        data.workers,
        processes,
        data.max_unreadable,
    )
    return Loaders(
        make_loader(train_set, share, size, data.workers, drop_last=True),
        val,
        parts["train"].classes,
        tuple(dict.fromkeys(parts["train"].notes + parts["val"].notes)),
        unreadable={"train": train_set.unreadable, "val": unreadable_of(val)},
        split=None if data.source == "elpv" else list_split(parts),
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


def evaluation_loader(
    samples: Samples,
    preprocessing: Mapping[str, Any],
    batch_size: int,
    workers: int,
    processes: int = 1,
    max_unreadable: float = 0.0,
) -> DataLoader[Any]:
    """Returns an evaluation loader of images in order, with labels as targets.

    It leaves out unreadable images, up to the fraction `max_unreadable`, so a batch may be empty.
    """
    transform = evaluation_transform(preprocessing)
    preprocess = Preprocessing.parse(preprocessing, "the checkpoint")
    short = short_side(preprocess.size, preprocess.crop_pct)
    dataset = ImageDataset(samples, transform, max_unreadable=max_unreadable, short_side=short)
    return ordered_loader(dataset, batch_size, workers, processes, collate_readable)


def unreadable_of(loader: DataLoader[Any]) -> Unreadable:
    """Returns the record of unreadable images of a loader's data set."""
    assert isinstance(loader.dataset, ImageDataset)
    return loader.dataset.unreadable


def read_splits(data: ClassificationData, run_data: RunData | None = None) -> dict[str, Samples]:
    """Lists the images of a recipe's data section: "train", "val" and perhaps "test".

    Args:
        data: The data section.
        run_data: What the run recorded about its data; images keep the part in its split list.

    Raises:
        UsageError: no data set is named, or a new run's folder lies among its images.
        UserError: the data are missing or cannot be used.
    """
    source = source_of(data)
    if source == "elpv":
        return elpv_splits(data.val_fraction, data.split_seed)
    if data.root is None:
        raise UsageError(f"data.root is not set; give {_ROOTS[data.source]}")
    if source == "table":
        return table_splits(data, run_data)
    if run_data is not None and run_data.is_new:
        refuse_inside(run_data.folder, _scanned_folders(data.source, data.root))
    known = None if run_data is None else run_data.classes
    name_images: Callable[[Sequence[Any]], Sequence[str]] = _keys
    if data.source == "folder":
        parts, name_images = folder_parts(data.root, known), partial(names_in, data.root)
    elif data.source == "webdataset":
        parts = read_shards(data.root, data.label_column, data.cache, known)
    else:
        parts = hub_parts(data.root, data.image_column, data.label_column)
    return split_parts(parts, data.root, data.val_fraction, data.split_seed, name_images, run_data)


def _scanned_folders(source: str, root: str) -> list[Path]:
    """Returns the folders that are scanned for images."""
    folder = Path(os.path.expanduser(root))
    if source == "hf" and folder.is_dir():
        return [folder]
    if source != "folder" or not folder.is_dir():
        return []
    return list(part_folders(folder).values()) or [folder]


def _keys(images: Sequence[Any]) -> list[str]:
    return [image.key for image in tqdm(images, desc="names", disable=None, leave=False)]


def train_transform(data: ClassificationData) -> Transform:
    """Makes timm's random training transform, from an RGB image to uint8 (3, S, S).

    Raises:
        UsageError: timm does not know the augmentation policy.
    """
    try:
        return mend_posterize(_train_transform(data))
    except (AssertionError, KeyError, ValueError) as error:
        if data.auto_augment is None:
            raise
        raise UsageError(
            f"data.auto_augment is {data.auto_augment!r}, must be a policy of timm's, such as "
            f"'rand-m9-mstd0.5-inc1' ({error or type(error).__name__})"
        ) from error


def _train_transform(data: ClassificationData) -> Transform:
    return create_transform(
        data.image_size,
        is_training=True,
        scale=data.scale,
        ratio=data.ratio,
        hflip=data.hflip,
        vflip=data.vflip,
        color_jitter=data.color_jitter or None,  # type: ignore[arg-type]
        auto_augment=data.auto_augment,
        interpolation=data.train_interpolation,
        mean=data.mean,  # fill colour of geometric augmentation
        use_prefetcher=True,  # leaves uint8; `standardize` does the rest
    )


def standardize(pixels: Tensor, data: ClassificationData) -> Tensor:
    """Standardizes a training batch, and applies the recipe's random erasing.

    Random erasing, like mixing, draws from the global generators.

    Args:
        pixels: (B, 3, S, S), uint8.
        data: The data section, with mean, standard deviation, and settings of random erasing.

    Returns:
        (B, 3, S, S), float32, on the same device.
    """
    mean, std = ([255 * value for value in values] for values in (data.mean, data.std))
    images = normalize(pixels.float(), mean, std, inplace=True)
    if not data.random_erasing:
        return images
    place: Any = images.device  # timm's annotation allows only a string
    return RandomErasing(data.random_erasing, mode=data.erasing_mode, device=place)(images)


def mend_posterize(transform: Transform) -> Transform:
    """Lets timm's policies posterize to 0 bits, which is black; Pillow 13 raises an error on it.

    RandAugment at the papers' strength (m9, mstd0.5) does so about once in 650 images.
    """
    steps = getattr(transform, "transforms", [])
    policies = [getattr(step, "ops", None) or getattr(step, "policy", []) for step in steps]
    for op in chain.from_iterable(policies):
        for inner in op if isinstance(op, list | tuple) else [op]:
            if getattr(inner, "aug_fn", None) is posterize:
                inner.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **rest: Any) -> Image.Image:
    return posterize(image, bits, **rest) if bits else Image.new(image.mode, image.size)


def preprocessing_of(data: ClassificationData) -> dict[str, Any]:
    """Returns the arguments of `timm.data.create_transform` for evaluation, as plain values."""
    return {
        "input_size": [3, data.image_size, data.image_size],
        "crop_pct": data.crop_pct,
        "interpolation": data.interpolation,
        "mean": list(data.mean),
        "std": list(data.std),
    }


def evaluation_transform(preprocessing: Mapping[str, Any]) -> Transform:
    """Makes the transform of validation and evaluation from a checkpoint's metadata.

    It is `Preprocessing`, as in prediction, explanation, calibration and exported files.

    Raises:
        UserError: the metadata are damaged.
    """
    return partial(_preprocess, Preprocessing.parse(preprocessing, "the checkpoint"))


def _preprocess(preprocess: Preprocessing, image: Image.Image) -> Tensor:
    return torch.from_numpy(preprocess(image))


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
