"""Data loaders of object detection, from data in COCO's format.

A batch is a pair of lists, `(images, targets)`. Images are (3, H, W), normalised, of different
sizes; detectors pad them. Training targets are torchvision's: boxes (N, 4) as x1, y1, x2, y2 in
pixels of the resized image, labels (N,) from 1, and optionally `mask_bits`, masks of the resized
image with eight pixels in a byte, or `keypoints` (N, K, 3), x and y in pixels of the resized image
and visibility, 0 outside of it. Evaluation targets hold `image_id` and `size`, the height and
width of the image file, to which a detector scales its results.
"""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from spanets.data.augment import ShortestSize, fit_sides, placements, recolouring
from spanets.data.loaders import Loaders, RankSampler, make_loader, shuffled_loader
from spanets.data.placement import Placement
from spanets.data.run_data import RunData
from spanets.data.sampler import EpochSampler, isolated_seed
from spanets.detection.keypoints import describe_keypoints, match_parts, move_points
from spanets.detection.reading import read_parts
from spanets.detection.recipe import DetectionData
from spanets.formats.coco.bits import count_pixels, pack_masks
from spanets.formats.coco.filling import fill
from spanets.formats.coco.keypoints import Keypoints
from spanets.formats.coco.loading import load_checked
from spanets.formats.coco.notes import count_small, describe_classes, describe_files
from spanets.formats.coco.objects import (
    CocoData,
    CocoImage,
    check_files,
    check_masks,
    map_classes,
    select_for_training,
)
from spanets_runtime.errors import UserError

Sample = tuple[Tensor, dict[str, Tensor]]

# The random crop of the papers' 3x recipe, from DETR (arXiv 2005.12872, section 4).
CROP_SIDES = (384, 600)
CROP_SHORT_SIDES = (400, 500, 600)
CROP_LONG_SIDE = 8192  # without it, a strip of 4000x2 pixels would grow to a gigabyte
STEP = 32


class TrainingImages(Dataset[Sample]):
    """Images with their objects, augmented.

    Args:
        data: The data set without crowd regions; see `select_for_training`.
        transform: Maps an image and its geometry to a tensor and the changed geometry.
        masks: Whether targets have masks.
        seed: Seed; random draws for an image depend on (seed, epoch, index) alone.
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
        with isolated_seed(self.seed, epoch, index):
            pixels, moved = self.transform(pixels, describe_geometry(image))
        target = make_target(image, moved, self.masks, self.data.keypoints)
        return pixels.as_subclass(Tensor), target


class EvaluationImages(Dataset[Sample]):
    """Preprocessed images for evaluation, with their ids and sizes.

    Args:
        data: The data set, including crowd regions.
        preprocessing: See `preprocessing_of`.
    """

    def __init__(self, data: CocoData, preprocessing: Mapping[str, Any]) -> None:
        self.data = data
        self.transform = evaluation_transform(preprocessing)

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        index = key[1] if isinstance(key, tuple) else key
        image = self.data.images[index % len(self)]  # repeats the first ones to fill up all ranks
        size = torch.tensor([image.height, image.width])
        target = {"image_id": torch.tensor(image.id), "size": size}
        return self.transform(load_checked(image)), target

    def inputs(self) -> Iterator[object]:
        """Yields what the samples are made from; see `KnownInputs`."""
        for image in self.data.images:
            yield from (image.path, image.id, image.height, image.width)
        yield self.data.category_ids


def describe_geometry(image: CocoImage) -> dict[str, Tensor]:
    """Returns the geometry that a transform changes together with an image.

    It holds the boxes of the objects, the objects' indices, which are dropped together with boxes,
    and a `Placement`, from which masks are made after the transform.
    """
    size = (image.height, image.width)
    boxes = torch.tensor([a.box for a in image.annotations], dtype=torch.float32).reshape(-1, 4)
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "objects": torch.arange(len(boxes)),
        "placement": Placement.of_file(*size),
    }


def make_target(
    image: CocoImage, moved: dict[str, Tensor], masks: bool, keypoints: Keypoints | None = None
) -> dict[str, Tensor]:
    """Returns torchvision's target of an image after its transform.

    Args:
        image: The annotated image.
        moved: The result of `describe_geometry` after the transform.
        masks: Whether to make masks; objects whose mask has no pixel are then left out.
        keypoints: The keypoints of the data set, if there are any.
    """
    boxes, objects = moved["boxes"].as_subclass(Tensor), moved["objects"]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    own: dict[str, Tensor] = {}
    if masks:
        bits = _make_masks(image, objects.tolist(), moved["placement"])
        area = count_pixels(bits)
        kept = area > 0
        bits = bits if kept.all() else bits[kept]  # copying would double the masks' memory
        boxes, objects, area, own = boxes[kept], objects[kept], area[kept], {"mask_bits": bits}
    labels = torch.tensor([image.annotations[i].label for i in objects], dtype=torch.int64)
    if keypoints is not None:
        points = [image.annotations[i].keypoints for i in objects]
        own["keypoints"] = move_points(points, keypoints, moved["placement"])
    return {
        "boxes": boxes,
        "labels": labels,
        "image_id": torch.tensor(image.id),
        **own,
        "area": area,
        "iscrowd": torch.zeros_like(labels),
    }


def _make_masks(image: CocoImage, objects: list[int], placement: Any) -> Tensor:
    file_size, size = (image.height, image.width), placement.canvas_size
    matrix = placement.as_subclass(Tensor).numpy()
    shapes = (image.annotations[i].segmentation for i in objects)
    masks = (fill(shape, file_size, matrix, size) for shape in shapes)
    return pack_masks(masks, len(objects), *size)


def train_transform(data: DetectionData) -> v2.Compose:
    """Makes the random training transform: the recipe's augmentation and a random scale."""
    first, last = data.train_short_sides
    sides = [*range(first, last, STEP), last]
    scale: v2.Transform | v2.Compose = ShortestSize(sides, data.long_side)
    if data.train_crop:
        before = ShortestSize(CROP_SHORT_SIDES, CROP_LONG_SIDE)
        scale = v2.RandomChoice([scale, v2.Compose([before, RandomSizeCrop(*CROP_SIDES), scale])])
    return v2.Compose(
        [
            *placements(data),
            *recolouring(data),
            scale,
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(labels_getter=_objects_of),
            *_normalisation(data.mean, data.std),
        ]
    )


def _objects_of(inputs: Any) -> Tensor:
    """Returns the object indices, which are dropped together with invalid boxes."""
    return inputs[1]["objects"]


class RandomSizeCrop(v2.Transform):
    """Crops at random; objects are clipped to the crop or dropped.

    Args:
        smallest, largest: Range of height and width in pixels, drawn independently and limited to
            the image.
    """

    def __init__(self, smallest: int, largest: int) -> None:
        super().__init__()
        self.smallest = smallest
        self.largest = largest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        """Draws the crop."""
        height, width = v2.functional.get_size(flat_inputs[0])
        sides = [self._draw(min(self.smallest, s), min(self.largest, s)) for s in (height, width)]
        top, left = self._draw(0, height - sides[0]), self._draw(0, width - sides[1])
        return {"top": top, "left": left, "height": sides[0], "width": sides[1]}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        """Crops an image, boxes or a placement."""
        return v2.functional.crop(inpt, **params)

    @staticmethod
    def _draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, ()))


def preprocessing_of(data: DetectionData) -> dict[str, Any]:
    """Returns the preprocessing of evaluation as plain values, for a checkpoint's metadata."""
    return {
        "short_side": data.short_side,
        "long_side": data.long_side,
        "mean": list(data.mean),
        "std": list(data.std),
    }


def evaluation_transform(preprocessing: Mapping[str, Any]) -> v2.Compose:
    """Makes the transform of evaluation and prediction, from an RGB image to (3, H, W).

    Raises:
        UserError: the preprocessing is damaged.
    """
    try:
        short, long = int(preprocessing["short_side"]), int(preprocessing["long_side"])
        mean, std = ([float(x) for x in preprocessing[name]] for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's preprocessing is damaged ({error})") from error
    if not (0 < short <= long and len(mean) == len(std) == 3 and min(std) > 0):
        raise UserError("the checkpoint's preprocessing is damaged (values out of range)")
    return v2.Compose(
        [v2.ToImage(), ShortestSize(short, long), *_normalisation(mean, std), v2.ToPureTensor()]
    )


def _normalisation(mean: Any, std: Any) -> list[v2.Transform]:
    to_float = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
    return [to_float, v2.Normalize(list(mean), list(std))]


def make_loaders(
    data: DetectionData,
    masks: bool,
    seed: int,
    batch_size: int,
    processes: int = 1,
    keypoints: bool = False,
    run_data: RunData | None = None,
) -> Loaders:
    """Reads a data set and makes its loaders.

    Args:
        data: The recipe's data section.
        masks: Whether targets have masks.
        seed: The recipe's seed.
        batch_size: Images in a batch of one process; see `shuffled_loader`.
        processes: Number of processes that share the images.
        keypoints: Whether targets have keypoints.
        run_data: What the run recorded about its data; images keep the part in its split list.

    Raises:
        UserError: the data are missing or cannot be used, "val" has a class that "train" lacks,
            masks are wanted and an object has none, or keypoints are and no object has one.
    """
    (listed, measured), split = read_parts(
        data, "train", "val", keypoints=keypoints, run_data=run_data
    )
    train = select_for_training(listed, data.keep_empty)
    val = map_classes(measured, train.classes)
    if masks:
        check_masks(train)
        check_masks(val)
    if keypoints:
        val = match_parts(train, val)
    dataset = TrainingImages(train, train_transform(data), masks, seed)
    return Loaders(
        shuffled_loader(dataset, batch_size, data.workers, processes, seed, as_lists),
        evaluation_loader(val, preprocessing_of(data), batch_size, data.workers, processes),
        train.classes,
        tuple(dict.fromkeys((*train.notes, *val.notes, *_describe(data, listed, train, val)))),
        split=split,
    )


def _describe(data: DetectionData, listed: CocoData, train: CocoData, val: CocoData) -> list[str]:
    """Returns notes about classes, files and small objects of both parts.

    Raises:
        UserError: every object is too small for training.
    """
    root = Path(os.path.expanduser(data.root or ""))
    lines = describe_classes(train, val)
    lines += describe_files(listed, val, [root / data.train_images, root / data.val_images])
    lines += [describe_keypoints(train.keypoints, data.hflip)] if train.keypoints else []
    small = describe_lost(data, train), describe_unseen(val, preprocessing_of(data))
    return [*lines, *filter(None, small)]


def describe_lost(data: DetectionData, train: CocoData) -> str:
    """Returns a note on objects that are too small for training, or "".

    Raises:
        UserError: all objects are too small.
    """
    first, last = (
        count_small(train.images, partial(fit_sides, short=side, long=data.long_side))
        for side in data.train_short_sides
    )
    if not first:
        return ""
    total = sum(len(image.annotations) for image in train.images)
    unless = " unless a crop enlarges them" if data.train_crop else ""
    sides = data.train_short_sides
    lost = f"{last} at a short side of {sides[1]}"
    if sides[0] < sides[1]:
        lost = f"{first} at a short side of {sides[0]}, {lost}"
    line = f"{train.source}: of {total} objects, {lost} are less than a pixel wide or high"
    advice = "raise data.train_short_sides, or cut the images into parts"
    if last == total and not data.train_crop:
        raise UserError(f"{line}, and none is left to train on; {advice}")
    return f"{line}, and left out of training there{unless}; {advice}"


def describe_unseen(val: CocoData, preprocessing: Mapping[str, Any]) -> str:
    """Returns a note on objects that are too small to be detected, or ""."""
    short, long = preprocessing["short_side"], preprocessing["long_side"]
    count = count_small(val.images, partial(fit_sides, short=short, long=long))
    total = sum(len(image.annotations) for image in val.images)
    if not count:
        return ""
    return (
        f"{val.source}: {count} of {total} objects are less than a pixel wide or high at the size "
        f"that a detector sees, a short side of {short}, and can hardly be found"
    )


def evaluation_loader(
    data: CocoData,
    preprocessing: Mapping[str, Any],
    batch_size: int,
    workers: int,
    processes: int = 1,
) -> DataLoader[Any]:
    """Returns an evaluation loader of images in order, with equally many images in every process.

    Some images may repeat. A detector processes images one by one, and if its parameters are spread
    over processes, all must process the same number.

    Args:
        data: The ground truth.
        preprocessing: See `preprocessing_of`.
        batch_size: Images loaded together; results do not depend on it.
        workers: Number of worker processes.
        processes: Number of processes that share the images.

    Raises:
        UserError: an image is missing.
    """
    check_files(data)
    dataset = EvaluationImages(data, preprocessing)
    count = -(-len(dataset) // processes) * processes
    share = RankSampler(EpochSampler(count, shuffle=False, seed=0), processes, whole=True)
    return make_loader(dataset, share, batch_size, workers, collate=as_lists)


def as_lists(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Collates samples into a list of images and a list of targets."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
