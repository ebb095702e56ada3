"""The keys of recipes that tasks on whole images share."""

from dataclasses import dataclass
from typing import Literal

from spanets.recipe.keys import key
from spanets.recipe.sections import FROM_WEIGHTS, Data, Optim, mean_key, std_key
from spanets_runtime.arrays import PIXEL_KEYS, PixelFormat
from spanets_runtime.decoding.decoded import MAX_CHANNELS
from spanets_runtime.errors import UsageError

_MEASURE = "; measure them with: spanets stats DATA --channels {}"


@dataclass
class ImageLevelData(Data):
    """Images, augmentation and preprocessing (timm's transforms)."""

    root: str | None = key(
        None,
        "Folder with `train/` and `val/`, or with classes to be split; or a table (.csv, .tsv, "
        ".jsonl, .parquet); or a folder, URL or pattern of shards; or a Hugging Face data set, on "
        "disk or by name.",
    )
    source: Literal["folder", "table", "webdataset", "hf", "elpv"] = key(
        "folder",
        "Kind of data set: class folders, a table, WebDataset shards, a Hugging Face data set, or "
        "ELPV. With folder, a root that is a table is read as one.",
    )
    columns: dict[str, str | None] = key(
        {},
        "Columns of a table by purpose (path, label, split, fold, group, weight), such as "
        "`{path: file, label: species}`. Others are found by their usual names; null leaves one "
        "out.",
    )
    images: str | None = key(
        None, "Folder below which a table's images lie; null is the folder of the table."
    )
    folds: int | None = key(
        None,
        "Number of folds to draw from a table, stratified by class; images of a group stay "
        "together. null takes the table's fold column.",
        between=(2, 1000),
    )
    fold: int | Literal["all"] | None = key(
        None,
        "The fold to validate on, from 0; the others are trained on. all runs every fold in turn.",
        between=(0, 10**8),
    )
    image_column: str | None = key(
        None, "Column of the images in a Hugging Face data set or a table; null finds it."
    )
    label_column: str | None = key(
        None,
        "Column of the labels in a Hugging Face data set or a table, or their key in the .json of "
        "shards; null finds it.",
    )
    shuffle_shards: int | None = key(
        None, "Number of shards shuffled together; null takes all.", between=(1, 2**20)
    )
    cache: str | None = key(None, "Folder for copies of remote shards; null is ~/.cache/spanets.")
    max_unreadable: float = key(
        0.0,
        "Fraction of the images that may be unreadable: training replaces them by others, "
        "evaluation leaves them out. With more, a run stops.",
        between=(0, 0.5),
    )
    keep_decoded: int | None = key(
        None,
        "Megabytes of memory for decoded training images, in each process that loads images, so "
        "that later epochs need not decode them again: 0.27 for one of 300x300 pixels. null keeps "
        "none.",
        between=(1, 2**20),
    )
    val_fraction: float = key(
        0.25,
        "Fraction of the images for validation, if there is no `val/`.",
        between=(0.001, 0.999),
    )
    split_seed: int = key(0, "Random seed of that split.", between=(0, 2**32 - 1))
    image_size: int = key(224, "Side of the square input, in pixels.", between=(1, 4096))
    crop_pct: float = key(
        0.9,
        f"Fraction of the image's side that the centre crop of evaluation keeps; {FROM_WEIGHTS}.",
        between=(0.01, 1),
        open=True,
    )
    interpolation: Literal["bilinear", "bicubic"] = key(
        "bicubic", f"Interpolation of evaluation; {FROM_WEIGHTS}.", open=True
    )
    train_interpolation: Literal["random", "bilinear", "bicubic"] = key(
        "random", "Interpolation of training; random draws one for each image."
    )
    channels: int | None = key(
        None,
        "Channels of the images, 1 to 16, read with their stored numbers of 8 or 16 bits or float; "
        "null reads every image as 8-bit RGB. `mean` and `std` need a number for each channel.",
        between=(1, MAX_CHANNELS),
    )
    value_range: tuple[float, float] | None = key(
        None,
        "With `channels`, the numbers that become 0 and 1, such as [0, 4095]; others are not "
        "clipped. null is 0 and 255 or 65535 for 8 and 16 bits, and floats stay as they are.",
        between=(-(10**9), 10**9),
    )
    bands: list[str] | None = key(
        None,
        "With `channels`, the names of the channels if each is a file: `[B02, B03]` reads "
        "scene_B02.tif and scene_B03.tif, or B02/scene.tif and B03/scene.tif, as one image.",
    )
    mean: tuple[float, ...] = mean_key((-(10**6), 10**6))
    std: tuple[float, ...] = std_key((1e-6, 10**6))
    scale: tuple[float, float] = key(
        (0.08, 1.0),
        "Smallest and largest area of the random crop, as a fraction of the image's.",
        between=(0.0001, 1),
    )
    ratio: tuple[float, float] = key(
        (3 / 4, 4 / 3),
        "Smallest and largest aspect ratio of the random crop, width over height.",
        between=(0.01, 100),
    )
    hflip: float = key(0.5, "Probability of a flip from left to right.", between=(0, 1))
    vflip: float = key(0.0, "Probability of a flip upside down.", between=(0, 1))
    color_jitter: float = key(
        0.0, "Strength of random brightness, contrast and saturation.", between=(0, 1)
    )
    auto_augment: str | None = key(
        None, "timm's augmentation policy, such as rand-m9-mstd0.5-inc1; null is none."
    )
    random_erasing: float = key(
        0.0, "Probability that a rectangle of the image is erased.", between=(0, 1)
    )
    erasing_mode: Literal["const", "rand", "pixel"] = key(
        "pixel",
        "What fills the rectangle: const zeros, rand one random colour, pixel random pixels.",
    )

    def check(self) -> None:
        """Raises a UsageError for numbers in the wrong order, or folds of which none is chosen."""
        self._check_pixels()
        if self.folds is not None and self.fold is None:
            raise UsageError(
                f"data.folds is {self.folds}, but data.fold is not set; give a number from 0 to "
                f"{self.folds - 1}, or all"
            )
        if self.folds is not None and isinstance(self.fold, int) and self.fold >= self.folds:
            raise UsageError(
                f"data.fold is {self.fold}, but data.folds is {self.folds}; give a number from 0 "
                f"to {self.folds - 1}, or all"
            )
        for name, (first, second) in (("scale", self.scale), ("ratio", self.ratio)):
            if first > second:
                raise UsageError(
                    f"data.{name} is [{first}, {second}], the first must be the smaller"
                )

    def _check_pixels(self) -> None:
        """Raises a UsageError for means, ranges or bands that do not go with the channels."""
        count = self.channels or 3
        for name, (low, high) in (("mean", (0, 1)), ("std", (0.001, 1000))):
            values = getattr(self, name)
            if values is None and count == 3:
                continue
            if values is None or len(values) not in (1, count):
                has = "is not set" if values is None else f"has {len(values)} numbers"
                raise UsageError(
                    f"data.{name} {has}, and images have {count} channels; give {count} numbers "
                    f"or one for all{_MEASURE.format(count) if self.channels else ''}"
                )
            for value in values if self.channels is None else ():
                if not low <= value <= high:
                    raise UsageError(f"data.{name} is {value}, allowed: {low} to {high}")
        if self.channels is None and (self.value_range or self.bands):
            given, count = (
                ("value_range", 3) if self.value_range else ("bands", len(self.bands or ()))
            )
            raise UsageError(
                f"data.{given} goes with data.channels, which is not set; add data.channels, such "
                f"as {count}"
            )
        try:
            PixelFormat.parse({key: getattr(self, key) for key in PIXEL_KEYS})
        except ValueError as error:
            raise UsageError(f"data.{error}") from None


def refuse_shards(data: ImageLevelData) -> None:
    """Raises a UsageError for keys of shards, which only classification reads."""
    for name in ("shuffle_shards", "cache"):
        if getattr(data, name) is not None:
            raise UsageError(f"data.{name} is for shards, which only classification reads")


@dataclass
class ImageLevelOptim(Optim):
    """Optimizer and schedule of a backbone with a classifier."""

    head_lr: float | None = key(
        None, "Learning rate of the classifier; null is `lr`.", between=(0, 1000)
    )
