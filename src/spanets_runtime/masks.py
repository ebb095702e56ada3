"""Images to masks: the loop that every kind of segmenter shares, and the pictures it leaves."""

import colorsys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.images import ImageError, load_image, named
from spanets_runtime.listing import ImageSource
from spanets_runtime.pictures import free_name, place_of, save_picture
from spanets_runtime.predict import AnswerError


@dataclass(frozen=True)
class MaskPrediction:
    """What was found in an image, or why nothing was.

    Attributes:
        image: Path.
        mask: PNG file of class numbers, as in the training masks.
        overlay: JPEG file of the image with the classes' colours over it.
        shares: Share of the pixels by class name, the largest first; absent ones are left out.
        error: What is wrong with the image or the answer, or None.
        was_read: The image is not what is wrong.
    """

    image: str
    mask: str = ""
    overlay: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    was_read: bool = True

    def __str__(self) -> str:
        """Returns a line for people."""
        shares = "  ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        return f"{self.image}: {self.mask}  {self.overlay}  {shares}"

    def to_dict(self) -> dict[str, object]:
        """Returns plain values for machines."""
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
    first: int = 0,
) -> Iterator[MaskPrediction]:
    """Writes mask and overlay of each image into a folder, and yields what was found.

    Args:
        images: Paths. An unreadable image has its error, and the others are still predicted.
        label: From an RGB image to the class of each pixel, (H, W); raises `AnswerError`.
        classes: Names, in the order of the numbers.
        out: Of the files NAME.png and NAME-overlay.jpg, in sub-folders as the images are, numbered
            where names are alike.
        first: The number to write for class 0.

    Raises:
        UserError: the folder cannot be written.
    """
    taken: set[str] = set()
    for path in images:
        try:
            image = load_image(path)
            labels = label(image)
        except ImageError as error:
            was_read = isinstance(error, AnswerError)
            yield MaskPrediction(str(path), error=named(path, error), was_read=was_read)
            continue
        name = free_name(place_of(path), taken)
        mask, picture = out / f"{name}.png", out / f"{name}-overlay.jpg"
        save_picture(mask_image(labels, len(classes), first), mask)
        save_picture(overlay(image, labels, len(classes)), picture)
        yield MaskPrediction(str(path), str(mask), str(picture), _shares(labels, classes))


def _shares(labels: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, float]:
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    return {classes[i]: float(counts[i] / labels.size) for i in order}


def class_colours(count: int) -> NDArray[np.uint8]:
    """Returns colours (count, 3) that can be told apart, the first of them dark gray.

    Hues are a golden section apart, so that the first few are as far from each other as they can.
    """
    colours = [(0.35, 0.35, 0.35)]
    for i in range(count - 1):
        value, saturation = (1.0, 0.7, 0.85)[i % 3], (0.75, 0.9, 0.5)[i // 3 % 3]
        colours.append(colorsys.hsv_to_rgb(0.61803 * i % 1, saturation, value))
    return (255 * np.array(colours[:count])).round().astype(np.uint8)


def mask_image(labels: NDArray[np.uint8], classes: int, first: int = 0) -> Image.Image:
    """Returns a mask as an image of numbers, with a palette for those who look at it.

    Args:
        labels: Of the pixels, (H, W).
        classes: How many there are.
        first: The number to write for class 0.
    """
    image = Image.fromarray(labels + np.uint8(first))
    image.putpalette(bytes(3 * first) + class_colours(classes).tobytes())
    return image


def overlay(image: Image.Image, labels: NDArray[np.uint8], classes: int) -> Image.Image:
    """Returns an RGB image in gray, with its classes' colours laid over it."""
    colours = Image.fromarray(class_colours(classes)[labels])
    return Image.blend(image.convert("L").convert("RGB"), colours, 0.5)
