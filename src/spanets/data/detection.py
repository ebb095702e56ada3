"""Object detection: from COCO's format to batches.

A batch is `(images, targets)`, two lists. Images are (3, H, W), normalised, each of its own size;
detectors pad them. Targets of training are torchvision's: boxes (N, 4) as x1, y1, x2, y2 in the
pixels of the resized image, labels (N,) from 1 up, and where asked masks (N, H, W) of 0 and 1;
those of evaluation hold `image_id` and `size`, height and width of the image in its file, which a
detector scales its results to.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from spanets.data.augment import placements, recolouring
from spanets.data.coco.objects import (
    Annotation,
    CocoData,
    CocoImage,
    check_files,
    check_masks,
    map_classes,
    mask_of,
    select_for_training,
)
from spanets.data.coco.reader import read_coco
from spanets.data.loaders import Loaders, Share, make_loader
from spanets.data.sampler import EpochSampler, isolated_seed
from spanets.recipe.detection import DetectionData
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError, load_image

Sample = tuple[Tensor, dict[str, Tensor]]

# Of the crop in the papers' 3x recipe, which is DETR's (arXiv 2005.12872, section 4).
CROP_SIDES = (384, 600)
CROP_SHORT_SIDES = (400, 500, 600)
STEP = 32


class TrainingImages(Dataset[Sample]):
    """Images with their objects, augmented.

    Args:
        data: Without crowd regions, see `select_for_training`.
        transform: From an image and its target to a tensor and a target.
        masks: Whether targets have masks.
        seed: All random draws for an image depend on (seed, epoch, index) alone.
    """

    def __init__(
        self, data: CocoData, transform: v2.Transform | v2.Compose, masks: bool, seed: int
    ) -> None:
        self.data = data
        self.transform = transform
        self.masks = masks
        self.seed = seed

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image = self.data.images[index]
        pixels = v2.functional.to_image(load_checked(image))
        target = make_target(image, image.annotations, self.masks)
        with isolated_seed(self.seed, epoch, index):
            return _plain(*self.transform(pixels, target))


class EvaluationImages(Dataset[Sample]):
    """Images as they are measured, with their number and size.

    Args:
        data: With crowd regions, which its objects are measured with.
        preprocessing: See `preprocessing_of`.
    """

    def __init__(self, data: CocoData, preprocessing: Mapping[str, Any]) -> None:
        self.data = data
        self.transform = evaluation_transform(preprocessing)

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        image = self.data.images[key[1] if isinstance(key, tuple) else key]
        size = torch.tensor([image.height, image.width])
        target = {"image_id": torch.tensor(image.id), "size": size}
        return self.transform(load_checked(image)), target


def load_checked(image: CocoImage) -> Image.Image:
    """Decodes an image, upright, and checks that it is the one that was annotated.

    Raises:
        ImageError: it cannot be decoded, or has another size than its annotations say.
    """
    try:
        pixels = load_image(image.path)
    except ImageError as error:
        raise ImageError(f"{error}; remove or replace this file") from None
    if pixels.size != (image.width, image.height):
        raise ImageError(
            f"{image.path}: has {pixels.width}x{pixels.height} pixels, its annotations are for "
            f"{image.width}x{image.height}"
        )
    return pixels


def make_target(
    image: CocoImage, annotations: tuple[Annotation, ...], masks: bool
) -> dict[str, Tensor]:
    """Returns torchvision's target of an image with these objects."""
    size = (image.height, image.width)
    boxes = torch.tensor([a.box for a in annotations], dtype=torch.float32).reshape(-1, 4)
    target: dict[str, Tensor] = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": torch.tensor([a.label for a in annotations], dtype=torch.int64),
        "image_id": torch.tensor(image.id),
    }
    if masks:
        decoded = [torch.from_numpy(mask_of(a, *size).copy()) for a in annotations]
        stacked = torch.stack(decoded) if decoded else torch.zeros((0, *size), dtype=torch.uint8)
        target["masks"] = tv_tensors.Mask(stacked)
    return target


def _plain(pixels: Tensor, target: dict[str, Tensor]) -> Sample:
    """Leaves out objects that a crop has left without a pixel, and adds areas."""
    target = {name: value.as_subclass(Tensor) for name, value in target.items()}
    boxes = target["boxes"]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if "masks" in target:
        area = target["masks"].sum((1, 2)).float()
        kept = area > 0
        area = area[kept]
        target |= {name: target[name][kept] for name in ("boxes", "labels", "masks")}
    target |= {"area": area, "iscrowd": torch.zeros_like(target["labels"])}
    return pixels.as_subclass(Tensor), target


def train_transform(data: DetectionData) -> v2.Compose:
    """Makes the random transform of training: what a recipe asks for, and a random scale."""
    first, last = data.train_short_sides
    sides = [*range(first, last, STEP), last]
    scale: v2.Transform | v2.Compose = v2.RandomShortestSize(sides, data.long_side)
    if data.train_crop:
        before = v2.RandomShortestSize(CROP_SHORT_SIDES)
        scale = v2.RandomChoice([scale, v2.Compose([before, RandomSizeCrop(*CROP_SIDES), scale])])
    return v2.Compose(
        [
            *placements(data),
            *recolouring(data),
            scale,
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(),
            *_normalisation(data.mean, data.std),
        ]
    )


class RandomSizeCrop(v2.Transform):
    """Cuts out a random part; objects lose what lies outside, and may be gone.

    Args:
        smallest, largest: Sides of the part, each drawn by itself; at most the image's.
    """

    def __init__(self, smallest: int, largest: int) -> None:
        super().__init__()
        self.smallest = smallest
        self.largest = largest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        """Draws the part."""
        height, width = v2.functional.get_size(flat_inputs[0])
        sides = [self._draw(min(self.smallest, s), min(self.largest, s)) for s in (height, width)]
        top, left = self._draw(0, height - sides[0]), self._draw(0, width - sides[1])
        return {"top": top, "left": left, "height": sides[0], "width": sides[1]}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        """Cuts the part out of an image, boxes or masks."""
        return v2.functional.crop(inpt, **params)

    @staticmethod
    def _draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, ()))


def preprocessing_of(data: DetectionData) -> dict[str, Any]:
    """Returns what `evaluation_transform` takes, as plain values for a checkpoint's card."""
    return {
        "short_side": data.short_side,
        "long_side": data.long_side,
        "mean": list(data.mean),
        "std": list(data.std),
    }


def evaluation_transform(preprocessing: Mapping[str, Any]) -> v2.Compose:
    """Makes the transform of evaluation and prediction, from an RGB image to (3, H, W).

    Raises:
        UserError: the description is damaged.
    """
    try:
        short, long = int(preprocessing["short_side"]), int(preprocessing["long_side"])
        mean, std = ([float(x) for x in preprocessing[name]] for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's preprocessing is damaged ({error})") from error
    if not (0 < short <= long and len(mean) == len(std) == 3 and min(std) > 0):
        raise UserError("the checkpoint's preprocessing is damaged (values out of range)")
    resize = v2.RandomShortestSize(short, long)  # of one size: `Resize` fails where it equals long
    return v2.Compose([v2.ToImage(), resize, *_normalisation(mean, std), v2.ToPureTensor()])


def _normalisation(mean: Any, std: Any) -> list[v2.Transform]:
    to_float = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
    return [to_float, v2.Normalize(list(mean), list(std))]


def read_part(data: DetectionData, part: str) -> CocoData:
    """Reads the annotations of a recipe's "train" or "val" part.

    Raises:
        UsageError: no folder is given.
        UserError: as for `read_coco`.
    """
    if data.root is None:
        raise UsageError(
            "data.root is not set; give the folder with images and annotations: --data.root DIR"
        )
    root = Path(os.path.expanduser(data.root))
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    annotations, images = getattr(data, f"{part}_annotations"), getattr(data, f"{part}_images")
    return read_coco(root / annotations, root / images)


def make_loaders(
    data: DetectionData, masks: bool, seed: int, batch_size: int, processes: int = 1
) -> Loaders:
    """Reads a data set and makes its loaders.

    Training images that do not fill a last batch are left out, others in every epoch. A data set
    smaller than a batch makes a smaller batch.

    Args:
        data: A recipe's section.
        masks: Whether targets have masks.
        seed: Of the recipe.
        batch_size: Images in a batch of one process.
        processes: That share the images.

    Raises:
        UserError: no such data, data that cannot be used, a class of "val" that "train" lacks, or
            an object without a mask where masks are asked for.
    """
    train = select_for_training(read_part(data, "train"), data.keep_empty)
    val = map_classes(read_part(data, "val"), train.classes)
    if masks:
        check_masks(train)
        check_masks(val)
    dataset = TrainingImages(train, train_transform(data), masks, seed)
    size = min(batch_size, len(dataset) // processes)
    if size < 1:
        raise UserError(f"{len(dataset)} training images are too few for {processes} devices")
    share = Share(EpochSampler(len(dataset), shuffle=True, seed=seed), processes, whole=False)
    return Loaders(
        make_loader(dataset, share, size, data.workers, drop_last=True, collate=as_lists),
        evaluation_loader(val, preprocessing_of(data), batch_size, data.workers, processes),
        train.classes,
        tuple(dict.fromkeys(train.notes + val.notes)),
    )


def evaluation_loader(
    data: CocoData,
    preprocessing: Mapping[str, Any],
    batch_size: int,
    workers: int,
    processes: int = 1,
) -> DataLoader[Any]:
    """Loads images in order; of several processes, some may see an image that another has seen.

    Raises:
        UserError: an image is missing.
    """
    check_files(data)
    dataset = EvaluationImages(data, preprocessing)
    share = Share(EpochSampler(len(dataset), shuffle=False, seed=0), processes, whole=True)
    return make_loader(dataset, share, batch_size, workers, collate=as_lists)


def as_lists(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Makes a batch: a list of images and one of targets."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
