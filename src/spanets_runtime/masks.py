"""Predicts masks with any segmenter, and writes the masks and overlays."""

import colorsys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.images import load_image
from spanets_runtime.labels import MAX_NUMBER
from spanets_runtime.listing import ImageSource
from spanets_runtime.pictures import check_outputs, name_outputs, save_picture
from spanets_runtime.predict import ImagePrediction, predict_each


@dataclass(frozen=True)
class MaskPrediction(ImagePrediction):
    """The predicted mask of an image.

    Attributes:
        image, error, was_read: See `ImagePrediction`.
        mask: Path of the PNG file with class numbers, encoded like the training masks.
        overlay: Path of the JPEG file that shows the classes in colour over the image.
        shares: Fraction of the pixels by class name, largest first, without absent classes.
    """

    mask: str = ""
    overlay: str = ""
    shares: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Returns a line of text."""
        shares = "  ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        return f"{self.image}: {self.mask}  {self.overlay}  {shares}"

    def to_dict(self) -> dict[str, object]:
        """Returns values for JSON."""
        if self.error is not None:
            return {"image": self.image, "mask": None, "overlay": None, "classes": None}
        shares = [{"label": name, "share": share} for name, share in self.shares.items()]
        return {
            "image": self.image,
            "mask": self.mask,
            "overlay": self.overlay,
            "classes": shares,
        }


def predict_masks(
    images: Iterable[ImageSource],
    label: Callable[[Image.Image], NDArray[np.uint8]],
    classes: Sequence[str],
    out: Path,
    numbers: Sequence[int],
) -> Iterator[MaskPrediction]:
    """Writes the mask and overlay of each image into a folder, and yields the predictions.

    It never overwrites an input image or a file that this package did not write.

    Args:
        images: Paths of the images. An unreadable one yields an error; the others go on.
        label: Function from an RGB image to the class of each pixel, (H, W); may raise
            `AnswerError`.
        classes: Class names.
        out: Folder for NAME.png and NAME-overlay.jpg, in the images' sub-folders; equal names get
            a number.
        numbers: Number of each class in the mask files.

    Raises:
        UserError: the folder cannot be written, or a file would be overwritten.
    """
    images = list(images)
    masks = [out / f"{name}.png" for name in name_outputs(images)]
    overlays = [mask.with_name(f"{mask.stem}-overlay.jpg") for mask in masks]
    check_outputs(images, [*masks, *overlays])
    places = iter(zip(masks, overlays, strict=True))

    def predict(path: ImageSource) -> MaskPrediction:
        mask, picture = next(places)  # also for an unreadable image, to stay in step
        image = load_image(path)
        labels = label(image)
        save_picture(mask_image(labels, numbers), mask)
        save_picture(overlay(image, labels, len(classes)), picture)
        return MaskPrediction(str(path), str(mask), str(picture), _shares(labels, classes))

    yield from predict_each(images, predict, MaskPrediction)


def _shares(labels: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, float]:
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    return {classes[i]: float(counts[i] / labels.size) for i in order}


def class_colours(count: int) -> NDArray[np.uint8]:
    """Returns distinct RGB colours (count, 3); the first is dark gray.

    Hues are a golden section apart, so that the first few differ as much as possible.
    """
    colours = [(0.35, 0.35, 0.35)]
    for i in range(count - 1):
        value, saturation = (1.0, 0.7, 0.85)[i % 3], (0.75, 0.9, 0.5)[i // 3 % 3]
        colours.append(colorsys.hsv_to_rgb(0.61803 * i % 1, saturation, value))
    return (255 * np.array(colours[:count])).round().astype(np.uint8)


def read_numbers(preprocessing: Mapping[str, Any], classes: int, path: str | Path) -> list[int]:
    """Reads the mask number of each class from a checkpoint's or exported file's preprocessing.

    Raises:
        UserError: the preprocessing is damaged; the message names `path`.
    """
    first, numbers = preprocessing.get("first", 0), preprocessing.get("values")
    if numbers is None:
        if first not in (0, 1):
            raise UserError(f"{path}: the preprocessing is damaged (first is {first!r})")
        return list(range(first, first + classes))
    is_list = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if (
        not is_list
        or len(numbers) != classes
        or not 0 <= min(numbers) <= max(numbers) <= MAX_NUMBER
    ):
        raise UserError(f"{path}: the preprocessing is damaged (values is {numbers!r})")
    return numbers


def mask_image(labels: NDArray[np.uint8], numbers: Sequence[int]) -> Image.Image:
    """Returns a mask image with a palette that makes the classes visible.

    A palette has at most 256 colours, so larger numbers give a 16-bit gray image.

    Args:
        labels: Class of each pixel, (H, W).
        numbers: Number to write for each class.
    """
    if max(numbers) > 255:
        return Image.fromarray(np.array(numbers, np.uint16)[labels])
    image = Image.fromarray(np.array(numbers, np.uint8)[labels])
    palette = np.zeros((max(numbers) + 1, 3), np.uint8)
    palette[list(numbers)] = class_colours(len(numbers))
    image.putpalette(palette.tobytes())
    return image


def overlay(image: Image.Image, labels: NDArray[np.uint8], classes: int) -> Image.Image:
    """Returns the image in gray with the colours of its classes over it, in mode "RGB"."""
    colours = Image.fromarray(class_colours(classes)[labels])
    return Image.blend(image.convert("L").convert("RGB"), colours, 0.5)
