"""The data set of whole images with targets, and its loaders."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spanets.data.image_level.arrays import describe_arrays
from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.image_level.transforms import (
    Transform,
    evaluation_transform,
    preprocessing_of,
    train_transform,
)
from spanets.data.loaders import Loaders, RankSampler, make_loader, ordered_loader
from spanets.data.sampler import EpochSampler, isolated, seed_sample
from spanets.data.samples import Samples
from spanets.data.splits import list_split
from spanets.data.unreadable import Unreadable, collate_readable, draw_replacement
from spanets_runtime.arrays import PixelFormat
from spanets_runtime.errors import UserError
from spanets_runtime.images import quiet_decoder
from spanets_runtime.preprocessing import Preprocessing, short_side

Sample = tuple[Tensor, ...]


class ImageDataset(Dataset[Sample | None]):
    """Decodes and transforms images; an index may be an `(epoch, index)` pair of `EpochSampler`.

    Args:
        samples: Images and labels.
        transform: Maps a decoded image to a tensor (C, S, S).
        targets: Target of each image; None takes the labels.
        seed: Seed; random draws for an image depend on (seed, epoch, index) alone.
        max_unreadable: Fraction of the images that may be unreadable.
        replace: Whether to replace an unreadable image by another; if not, its sample is None.
        short_side: See `Unreadable`.
        weighted: Whether a sample has its image's weight as third item, if there are weights.
        pixels: How images are read; None is 8-bit RGB.
        keep: Bytes of decoded images to keep in memory for later epochs.

    Attributes:
        unreadable: The unreadable images found so far.
    """

    def __init__(
        self,
        samples: Samples,
        transform: Transform,
        targets: Sequence[Any] | NDArray[Any] | None = None,
        seed: int = 0,
        max_unreadable: float = 0.0,
        replace: bool = False,
        short_side: int | None = None,
        weighted: bool = False,
        pixels: PixelFormat | None = None,
        keep: int = 0,
    ) -> None:
        self.unreadable = Unreadable(samples, max_unreadable, short_side, pixels)
        self._kept: dict[int, Any] = {}
        self._room = keep
        self.transform = transform
        self.targets = torch.tensor(samples.labels if targets is None else targets)
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

    def inputs(self) -> Iterator[object]:
        """Yields what the samples are made from; see `KnownInputs`."""
        yield from self.unreadable.samples.images
        yield hashlib.sha256(self.targets.numpy().tobytes()).hexdigest()

    def name(self, index: int) -> str:
        """Returns the name of an image, for messages."""
        return str(self.unreadable.samples.images[index])

    def _load(self, epoch: int, index: int) -> tuple[Any, int]:
        """Returns an image and its index, or those of a replacement."""
        taken, attempt = index, 0
        while True:
            image = self._decode(taken)
            if image is not None or not self.replace:
                return image, taken
            attempt += 1
            taken = draw_replacement(self.seed, epoch, index, attempt, len(self))

    def _decode(self, index: int) -> Any:
        """Returns a decoded image that the caller may change, or None if it is unreadable."""
        if (kept := self._kept.get(index)) is not None:
            return kept.copy()
        image = self.unreadable.load(index)
        if self._room > 0 and image is not None:
            size = image.nbytes if isinstance(image, np.ndarray) else 3 * image.width * image.height
            if size <= self._room:
                self._room -= size
                self._kept[index] = image.copy()
        return image


def evaluation_loader(
    samples: Samples,
    preprocessing: Mapping[str, Any],
    batch_size: int,
    workers: int,
    processes: int = 1,
    max_unreadable: float = 0.0,
    targets: Sequence[Any] | NDArray[Any] | None = None,
) -> DataLoader[Any]:
    """Returns an evaluation loader of images in order, with their targets or else their labels.

    It leaves out unreadable images, up to the fraction `max_unreadable`, so a batch may be empty.
    """
    transform = evaluation_transform(preprocessing)
    preprocess = Preprocessing.parse(preprocessing, "the checkpoint")
    short = short_side(preprocess.size, preprocess.crop_pct)
    dataset = ImageDataset(
        samples,
        transform,
        targets,
        max_unreadable=max_unreadable,
        short_side=short,
        pixels=preprocess.pixels,
    )
    return ordered_loader(dataset, batch_size, workers, processes, collate_readable)


def unreadable_of(loader: DataLoader[Any]) -> Unreadable:
    """Returns the record of unreadable images of a loader's data set."""
    assert isinstance(loader.dataset, ImageDataset)
    return loader.dataset.unreadable


def make_image_loaders(
    data: ImageLevelData,
    parts: Mapping[str, Samples],
    order: EpochSampler,
    targets: Callable[[Samples], Sequence[Any] | NDArray[Any] | None],
    batch_size: int,
    processes: int = 1,
    *,
    seed: int = 0,
    in_pairs: bool = False,
) -> Loaders:
    """Makes the training and the validation loader of a data set.

    The last training batch of an epoch is dropped if it is not full. A data set smaller than a
    batch gives one smaller batch.

    Args:
        data: The data section.
        parts: Images by part; see `read_splits`.
        order: Order of the training images.
        targets: Returns the targets of a part; None takes its labels.
        batch_size: Images in a batch of one process.
        processes: Number of processes that share the images.
        seed: Seed of the augmentation.
        in_pairs: Whether training batches must have an even number of images.

    Raises:
        UserError: fewer training images than processes.
    """
    train, val = parts["train"], parts["val"]
    train_set = ImageDataset(
        train,
        train_transform(data),
        targets(train),
        seed,
        data.max_unreadable,
        replace=True,
        short_side=short_side(data.image_size, data.crop_pct),
        weighted=True,
        pixels=PixelFormat.parse(preprocessing_of(data)),
        keep=10**6 * (data.keep_decoded or 0),
    )
    size = min(batch_size, len(train_set) // processes)
    if in_pairs:
        size -= size % 2
    if size < 1:
        raise UserError(f"{len(train_set)} training images are too few for {processes} devices")
    share = RankSampler(order, processes, False)
    val_loader = evaluation_loader(
        val,
        preprocessing_of(data),
        batch_size,
        data.workers,
        processes,
        data.max_unreadable,
        targets(val),
    )
    return Loaders(
        make_loader(train_set, share, size, data.workers, drop_last=True),
        val_loader,
        train.classes,
        tuple(dict.fromkeys(train.notes + val.notes + describe_arrays(data))),
        unreadable={"train": train_set.unreadable, "val": unreadable_of(val_loader)},
        split=None if data.source == "elpv" else list_split(parts),
    )
