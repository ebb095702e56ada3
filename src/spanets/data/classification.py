"""Image classification: from a recipe's data section to loaders of batches.

A batch is `(images (B, 3, S, S), targets)`: targets are labels (B,) or, where the recipe asks for
the data set's probabilities, (B, classes).
"""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from timm.data import Mixup, create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spanets.data.elpv import elpv_splits
from spanets.data.folder import folder_splits
from spanets.data.sampler import EpochSampler, isolated_seed
from spanets.data.samples import Samples
from spanets.recipe import Data, Recipe, parse_recipe
from spanets_runtime.errors import UsageError, UserError, nearest
from spanets_runtime.images import ImageError, load_image

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
        try:
            image = load_image(self.samples.images[index])
        except ImageError as error:
            raise ImageError(f"{error}; remove or replace this file") from None
        with isolated_seed(self.seed, epoch, index):
            return self.transform(image), self.targets[index]


class Share(Sampler[tuple[int, int]]):
    """The share of an order that this process has of several: every n-th sample.

    Args:
        order: The order of all samples.
        processes: That share them, each as many as the others.
        whole: Where they do not divide, repeat the first samples, so that none is left out; if
            not, leave the last ones out.
    """

    def __init__(self, order: EpochSampler, processes: int, whole: bool) -> None:
        self.order = order
        self.processes = processes
        self.length = -(-len(order) // processes) if whole else len(order) // processes
        self.seen = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration; Lightning calls this by itself."""
        self.order.set_epoch(epoch)

    def skip(self, samples: int) -> None:
        """Makes the next iteration, and no later one, begin after so many samples of this share.

        A run resumed within an epoch so goes on without decoding what it has seen. The length
        stays that of the epoch, of which the iteration is the rest.
        """
        self.seen = samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank = dist.get_rank() if self.processes > 1 else 0
        first, self.seen = rank + self.seen * self.processes, 0
        repeated = chain.from_iterable(repeat(self.order))
        return islice(repeated, first, self.length * self.processes, self.processes)

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class Loaders:
    """Loaders of one data set, for training and for validation."""

    train: DataLoader[Any]
    val: DataLoader[Any]
    classes: list[str]


def make_loaders(recipe: Recipe, batch_size: int, processes: int = 1) -> Loaders:
    """Reads the data set of a recipe and makes its loaders.

    Training images that do not fill a last batch are left out, others in every epoch. A data set
    smaller than a batch makes a smaller batch.

    Args:
        recipe: Its data section is read.
        batch_size: Images in a batch of one process.
        processes: That share the images.

    Raises:
        UserError: no such data, or data that cannot be used; see `folder_splits`, `load_elpv`.
    """
    data, parts = recipe.data, read_splits(recipe.data)
    train_set = ImageDataset(parts["train"], train_transform(data), data.soft_targets, recipe.seed)
    order = EpochSampler(len(train_set), shuffle=True, seed=recipe.seed)
    size = min(batch_size, len(train_set) // processes)
    if data.mixup or data.cutmix:
        size -= size % 2  # images are mixed in pairs
    if size < 1:
        raise UserError(f"{len(train_set)} training images are too few for {processes} devices")
    return Loaders(
        _make_loader(train_set, Share(order, processes, False), size, data.workers, drop_last=True),
        evaluation_loader(
            parts["val"], preprocessing_of(data), batch_size, data.workers, processes
        ),
        parts["train"].classes,
    )


def evaluation_loader(
    samples: Samples,
    preprocessing: Mapping[str, Any],
    batch_size: int,
    workers: int,
    processes: int = 1,
) -> DataLoader[Any]:
    """Loads images in order, with labels for targets, each once in one process."""
    dataset = ImageDataset(samples, evaluation_transform(preprocessing))
    order = EpochSampler(len(dataset), shuffle=False, seed=0)
    return _make_loader(dataset, Share(order, processes, True), batch_size, workers)


def _make_loader(
    dataset: ImageDataset, sampler: Share, batch_size: int, workers: int, drop_last: bool = False
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )


def _start_worker(_: int) -> None:
    """Leaves Ctrl-C to the main process, and is silent when that one hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report_all_but_hanging_up


def _report_all_but_hanging_up(kind: type[BaseException], *error: Any) -> None:
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, *error)


@contextmanager
def plain_worker_errors() -> Iterator[None]:
    """Says plainly what went wrong in a process that loads images.

    Raises:
        UserError: that which the process raised, or that it died.
    """
    try:
        yield
    except UserError as error:
        # torch raises it again with the process's traceback for a message, whose last line is
        # "module.Type: message".
        lines = str(error).splitlines()
        if len(lines) < 2:
            raise
        raise type(error)(lines[-1].partition(": ")[2]) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"a process that loads images died, perhaps for want of memory ({reason}); "
            "lower data.workers or --workers"
        ) from error


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
    for name in samples.classes:
        if name not in classes:
            hint = nearest(name, classes) or f"; it has {', '.join(classes[:20])}"
            raise UserError(f"the checkpoint has no class {name!r}{hint}")
    labels = [classes.index(samples.classes[label]) for label in samples.labels]
    return Samples(samples.images, labels, classes)


def train_transform(data: Data) -> Transform:
    """Makes the random transform of training, timm's.

    Raises:
        UsageError: a policy that timm does not know.
    """
    try:
        return _train_transform(data)
    except (AssertionError, KeyError, ValueError) as error:
        if data.auto_augment is None:
            raise
        raise UsageError(
            f"data.auto_augment is {data.auto_augment!r}, must be a policy of timm's, such as "
            f"'rand-m9-mstd0.5-inc1' ({error or type(error).__name__})"
        ) from error


def _train_transform(data: Data) -> Transform:
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
        mean=data.mean,
        std=data.std,
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


def evaluation_transform(preprocessing: Mapping[str, Any]) -> Transform:
    """Makes the transform of evaluation and prediction, as a checkpoint's card describes it.

    Raises:
        UserError: the description is damaged.
    """
    try:
        values = {"image_size": preprocessing["input_size"][-1], **preprocessing}
        del values["input_size"]
        data = parse_recipe({"data": values}).data
    except (KeyError, TypeError, IndexError, UsageError) as error:
        raise UserError(f"the checkpoint's preprocessing is damaged ({error})") from error
    return create_transform(**preprocessing_of(data))


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
