"""Data loaders of semantic segmentation, from a recipe's data section.

A training batch is `(images (B, 3, S, S), masks (B, S, S))`. Images for evaluation come one by one,
because their sizes differ. The image is resized and the mask is not:
`(images (1, 3, h, w), masks (1, H, W))`.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from spanets.data.augment import distortions, placements, recolouring
from spanets.data.loaders import Loaders, ordered_loader, shuffled_loader
from spanets.data.run_data import RunData
from spanets.data.sampler import isolated_seed
from spanets.data.sources.runs_among_images import refuse_inside
from spanets.data.splits import list_split
from spanets.segmentation.masks.findings import check_surveys, survey_notes
from spanets.segmentation.masks.reading import MaskedImages, ade20k_parts, folder_parts
from spanets.segmentation.masks.survey import survey
from spanets.segmentation.masks.values import IGNORED, given_values
from spanets.segmentation.recipe import SegmentationData, SegmentationRecipe
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.resize_to_fit import ResizeToFit, fit_size

# Draws of a crop before accepting one in which a class exceeds `data.crop_share`.
CROP_DRAWS = 10

Transform = Callable[[Image.Image, NDArray[np.uint8]], tuple[Tensor, Tensor]]


class MaskDataset(Dataset[tuple[Tensor, Tensor]]):
    """Decodes images and masks; an index may be an `(epoch, index)` pair of `EpochSampler`.

    Args:
        samples: Image and mask files.
        transform: Maps an RGB image and its mask (H, W) to tensors.
        seed: Seed; random draws for an image depend on (seed, epoch, index) alone.
    """

    def __init__(self, samples: MaskedImages, transform: Transform, seed: int = 0) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        try:
            image = load_image(self.samples.images[index])
            mask = self.samples.load_mask(index, (image.height, image.width))
        except ImageError as error:
            raise ImageError(f"{error}; mend, replace or remove it") from None
        with isolated_seed(self.seed, epoch, index):
            return self.transform(image, mask)

    def inputs(self) -> Iterator[object]:
        """Yields what the samples are made from; see `KnownInputs`."""
        yield from self.samples.images
        yield from self.samples.masks
        yield from (self.samples.classes, self.samples.values, self.samples.colours)


class TrainTransform:
    """Resizes, crops, flips and recolours at random, then standardizes and pads to the crop size.

    Padding has the mean colour and the mask value `IGNORED`, as in mmsegmentation's pipeline, which
    the papers use.

    Args:
        data: The recipe's data section.
    """

    def __init__(self, data: SegmentationData) -> None:
        self.data = data
        self.augment = v2.Compose(
            [
                *placements(data),
                *(distortions() if data.photometric else []),
                *recolouring(data),
            ]
        )

    def __call__(self, image: Image.Image, mask: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Returns an image (3, S, S), float32, and a mask (S, S), int64."""
        crop = self.data.crop
        pixels, labels = F.pil_to_tensor(image), torch.from_numpy(mask)[None]
        factor = random.uniform(*self.data.scale)
        size = list(fit_size(image.height, image.width, *self.data.resize, factor))
        pixels = F.resize(pixels, size, antialias=True)
        labels = F.resize(labels, size, InterpolationMode.NEAREST_EXACT)
        box = choose_crop(labels[0], crop, self.data.crop_share)
        pixels, labels = self.augment(
            tv_tensors.Image(F.crop(pixels, *box)), tv_tensors.Mask(F.crop(labels, *box))
        )
        pixels = F.normalize(
            F.to_dtype(pixels, torch.float32, scale=True), list(self.data.mean), list(self.data.std)
        )
        padding = [0, 0, crop - pixels.shape[2], crop - pixels.shape[1]]
        pixels, labels = F.pad(pixels, padding), F.pad(labels, padding, fill=IGNORED)
        return pixels.as_subclass(Tensor), labels[0].as_subclass(Tensor).long()


class EvaluationTransform:
    """Resizes and standardizes the image, and leaves the mask unchanged.

    Args:
        fitting: Preprocessing of the image.
    """

    def __init__(self, fitting: ResizeToFit) -> None:
        self.fitting = fitting

    def __call__(self, image: Image.Image, mask: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Returns an image (3, h, w), float32, and its mask (H, W), int64."""
        return torch.from_numpy(self.fitting(image)), torch.from_numpy(mask).long()


def choose_crop(labels: Tensor, side: int, share: float) -> tuple[int, int, int, int]:
    """Draws a crop in which no class has more than `share` of the pixels, in at most ten draws.

    Args:
        labels: Mask of the image, (H, W).
        side: Side of the square in pixels; the crop is smaller where the image is.
        share: Largest fraction of one class among pixels that are not ignored.

    Returns:
        Top, left, height and width in pixels.
    """
    height, width = (min(side, length) for length in labels.shape)
    box = (0, 0, height, width)
    for _ in range(CROP_DRAWS):
        top = random.randint(0, labels.shape[0] - height)
        left = random.randint(0, labels.shape[1] - width)
        box = (top, left, height, width)
        counts = torch.bincount(F.crop(labels, *box).flatten(), minlength=256)
        counts[IGNORED] = 0
        if counts.count_nonzero() > 1 and counts.max() < share * counts.sum():
            break
    return box


def make_loaders(
    recipe: SegmentationRecipe, batch_size: int, processes: int = 1, run_data: RunData | None = None
) -> Loaders:
    """Reads the data set of a recipe and makes its loaders.

    Args:
        recipe: The recipe.
        batch_size: Images in a training batch of one process; see `shuffled_loader`.
        processes: Number of processes that share the images.
        run_data: What the run recorded about its data.

    Raises:
        UserError: the data are missing or cannot be used; see `segmentation.masks`.
    """
    data, parts = recipe.data, read_parts(recipe.data, run_data=run_data)
    missing = {"train", "val"} - parts.keys()
    if missing:
        found = ", ".join(f"images/{name}" for name in parts)
        raise UserError(f"{data.root}: has {found}, but no images/{missing.pop()} to train on")
    notes = check_parts(parts, is_training=True)
    train_set = MaskDataset(parts["train"], TrainTransform(data), recipe.seed)
    if min(batch_size, len(train_set) // processes) < 2:
        raise UserError(
            f"{len(train_set)} training images are too few for {processes} devices: batch norm "
            "needs two each"
        )
    return Loaders(
        shuffled_loader(train_set, batch_size, data.workers, processes, recipe.seed),
        evaluation_loader(parts["val"], preprocessing_of(data), data.workers, processes),
        parts["train"].classes,
        notes,
        split=list_split(parts) if data.layout == "folder" else None,
    )


def check_parts(
    parts: Mapping[str, MaskedImages], is_training: bool, is_known: bool = False
) -> tuple[str, ...]:
    """Checks images and masks before they are used; see `segmentation.masks.survey`.

    Args:
        parts: Parts of the data set by name.
        is_training: Whether a network is trained on the part "train".
        is_known: Whether the checkpoint's run checked them, together with its other parts.

    Returns:
        Messages about what was left out, renamed or changed, and about missing classes.

    Raises:
        UserError: files cannot be used, or the mask values are probably misread.
    """
    order = sorted(parts, key=lambda part: part != "train")
    surveys = {part: survey(parts[part], part) for part in order}
    check_surveys(surveys, is_training, is_known)
    of_files = [note for part in order for note in parts[part].notes]
    return tuple(dict.fromkeys((*of_files, *survey_notes(surveys))))


def evaluation_loader(
    samples: MaskedImages, preprocessing: dict[str, Any], workers: int, processes: int = 1
) -> DataLoader[Any]:
    """Loads images in order, one by one, each once in one process."""
    fitting = ResizeToFit.parse(preprocessing, "the checkpoint")
    dataset = MaskDataset(samples, EvaluationTransform(fitting))
    return ordered_loader(dataset, 1, workers, processes)


def read_parts(
    data: SegmentationData,
    split: bool = True,
    classes: list[str] | None = None,
    run_data: RunData | None = None,
) -> dict[str, MaskedImages]:
    """Lists the images of a recipe's data section: "train", "val" and perhaps "test".

    Args:
        data: The data section.
        split: Whether to split the training images if there is no part "val".
        classes: Class names, used if no file of the data set names them.
        run_data: What the run recorded about its data; images keep the part in its split list.

    Raises:
        UsageError: no data set is named, or a new run's folder lies among its images.
        UserError: the data are missing or cannot be used.
    """
    if data.root is None:
        raise UsageError(
            "data.root is not set; give the folder that holds images and masks: --data.root DIR"
        )
    if run_data is not None and run_data.is_new:
        root = Path(os.path.expanduser(data.root))
        refuse_inside(run_data.folder, [root / name for name in ("images", "masks", "annotations")])
    if data.layout == "ade20k":
        return ade20k_parts(data.root, classes)
    fraction = data.val_fraction if split else None
    seed, values = data.split_seed, data.mask_values
    return folder_parts(data.root, data.num_classes, fraction, seed, values, classes, run_data)


def preprocessing_of(data: SegmentationData, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the preprocessing of evaluation as plain values, for a checkpoint.

    Args:
        data: The recipe's data section.
        classes: Class names; with `data.mask_values`, they set the numbers of written masks.
    """
    numbers: dict[str, Any] = {"first": 1 if data.layout == "ade20k" else 0}
    if data.mask_values is not None and classes:
        numbers["values"] = given_values(data.mask_values, classes).stored(len(classes))
    return {
        "input_size": [3, data.crop, data.crop],
        "resize": list(data.resize),
        "mean": list(data.mean),
        "std": list(data.std),
        "test": data.test,
        "slide": list(data.slide),
        **numbers,
    }
