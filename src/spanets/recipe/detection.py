"""The recipe of object detection and instance segmentation."""

from dataclasses import dataclass
from typing import ClassVar

from spanets.recipe.sections import Data, Ranges
from spanets_runtime.errors import UsageError


@dataclass
class DetectionData(Data):
    """Images with annotations in COCO's format, augmentation and preprocessing.

    Attributes:
        root: As in `Data`; the next four lie in it.
        train_images, val_images: Folders that the annotations' file names are relative to.
        train_annotations, val_annotations: JSON files.
        keep_empty: Train on images without objects as well.
        short_side: Of an image for evaluation, in pixels; larger and smaller ones are resized.
        long_side: The short side is less where the long one would exceed this.
        train_short_sides: Smallest and largest in training, drawn in steps of 32.
        train_crop: For half of the training images, first cut out a part of 384 to 600 pixels, of
            the image at a short side of 400, 500 or 600.
        hflip: Probability of a flip.
        mean, std: Per channel, of pixel values in 0..1.
        workers: As in `Data`.
    """

    RANGES: ClassVar[Ranges] = {
        **Data.RANGES,
        "short_side": (32, 4096),
        "long_side": (32, 8192),
        "train_short_sides": (32, 4096),
        "hflip": (0, 1),
        "mean": (0, 1),
        "std": (0.001, 1000),
    }

    train_images: str = "train2017"
    train_annotations: str = "annotations/instances_train2017.json"
    val_images: str = "val2017"
    val_annotations: str = "annotations/instances_val2017.json"
    keep_empty: bool = False
    short_side: int = 800
    long_side: int = 1333
    train_short_sides: tuple[int, int] = (800, 800)
    train_crop: bool = False
    hflip: float = 0.5
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def check(self) -> None:
        """Raises a UsageError for sides that are not in order."""
        first, last = self.train_short_sides
        if first > last:
            raise UsageError(
                f"data.train_short_sides is [{first}, {last}], the first must be the smaller"
            )
        if max(last, self.short_side) > self.long_side:
            raise UsageError(
                f"data.long_side is {self.long_side}, less than a short side of "
                f"{max(last, self.short_side)}"
            )
