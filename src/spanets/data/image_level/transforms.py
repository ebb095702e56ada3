"""Training and evaluation transforms of whole images, which are timm's.

Training images are uint8, a quarter of the bytes of float32, until `standardize` converts them on
the device. Evaluation images are standardized as in `predict`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import posterize
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from spanets.data.image_level.arrays import ArrayTransform
from spanets.data.image_level.recipe import ImageLevelData
from spanets_runtime.arrays import PIXEL_KEYS, PixelFormat
from spanets_runtime.errors import UsageError
from spanets_runtime.preprocessing import Pixels, Preprocessing

Transform = Callable[[Any], Tensor]
"""Function from a decoded image, RGB or an array, to the network's input."""


def train_transform(data: ImageLevelData) -> Transform:
    """Makes timm's random training transform, from an RGB image to uint8 (3, S, S).

    With `data.channels`, it is `ArrayTransform`.

    Raises:
        UsageError: timm does not know the augmentation policy.
    """
    if (pixels := PixelFormat.parse(preprocessing_of(data))) is not None:
        return ArrayTransform(data, pixels)
    try:
        return mend_posterize(_train_transform(data))
    except (AssertionError, KeyError, ValueError) as error:
        if data.auto_augment is None:
            raise
        raise UsageError(
            f"data.auto_augment is {data.auto_augment!r}, must be a policy of timm's, such as "
            f"'rand-m9-mstd0.5-inc1' ({error or type(error).__name__})"
        ) from error


def _train_transform(data: ImageLevelData) -> Transform:
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


def standardize(pixels: Tensor, data: ImageLevelData) -> Tensor:
    """Standardizes a training batch, and applies the recipe's random erasing.

    Random erasing, like mixing, draws from the global generators.

    Args:
        pixels: (B, C, S, S), uint8, or float32 if scaled already.
        data: The data section, with mean, standard deviation, and settings of random erasing.

    Returns:
        (B, C, S, S), float32, on the same device.
    """
    top = 255 if pixels.dtype == torch.uint8 else 1
    mean, std = ([top * value for value in values] for values in (data.mean, data.std))
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


def preprocessing_of(data: ImageLevelData) -> dict[str, Any]:
    """Returns the arguments of `timm.data.create_transform` for evaluation, as plain values."""
    side, found = data.image_size, {key: getattr(data, key) for key in PIXEL_KEYS}
    return {
        "input_size": [data.channels or 3, side, side],
        "crop_pct": data.crop_pct,
        "interpolation": data.interpolation,
        "mean": list(data.mean),
        "std": list(data.std),
        **{key: list(v) if isinstance(v, tuple) else v for key, v in found.items() if v},
    }


def evaluation_transform(preprocessing: Mapping[str, Any]) -> Transform:
    """Makes the transform of validation and evaluation from a checkpoint's metadata.

    It is `Preprocessing`, as in prediction, explanation, calibration and exported files.

    Raises:
        UserError: the metadata are damaged.
    """
    return partial(_preprocess, Preprocessing.parse(preprocessing, "the checkpoint"))


def _preprocess(preprocess: Preprocessing, image: Pixels) -> Tensor:
    return torch.from_numpy(preprocess(image))
