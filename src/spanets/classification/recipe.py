"""The recipe of image classification."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from spanets.recipe.sections import Data, Ranges, Recipe
from spanets_runtime.errors import UsageError


@dataclass
class ClassificationData(Data):
    """Images, augmentation and preprocessing (timm's transforms and mixing).

    Attributes:
        source: "folder" (class folders under `root`), "webdataset" (shards), "hf" (Hugging Face)
            or "elpv".
        root: As in `Data`: `train/` and `val/` in it, or classes to be split; or a folder, URL or
            pattern of shards; or a Hugging Face data set, on disk or by name.
        image_column, label_column: Of a Hugging Face data set, or the label's key in the .json
            of shards; None finds them.
        shuffle_shards: Shards whose images are shuffled together; None takes all.
        cache: Folder for copies of shards that are elsewhere; None is ~/.cache/spanets.
        max_unreadable: Share of the images that may be unreadable: others take their places in
            training, and evaluation leaves them out. With more, and by default with any, a run
            stops.
        val_fraction: Share of the images for validation where there is no `val/`.
        split_seed: Seed of that split.
        soft_targets: Train on the data set's probabilities instead of its labels (ELPV).
        image_size: Side of the square input, in pixels.
        crop_pct: Share of the image's side that evaluation crops.
        interpolation: Of evaluation: "bilinear" or "bicubic".
        train_interpolation: The same, or "random".
        mean, std: Per channel, of pixel values in 0..1.
        scale, ratio: Area and aspect ratio of the random crop.
        hflip, vflip: Probability of a flip.
        color_jitter: Strength of random brightness, contrast and saturation.
        auto_augment: timm's policy, such as "rand-m9-mstd0.5-inc1".
        random_erasing: Probability.
        erasing_mode: "const", "rand" or "pixel".
        mixup, cutmix: α of each; 0 leaves it out.
        mix_prob: Probability that a batch is mixed.
        mix_switch_prob: Probability of CutMix where both are on.
        mix_mode: "batch", "pair" or "elem".
        workers: As in `Data`.
    """

    RANGES: ClassVar[Ranges] = {
        **Data.RANGES,
        "shuffle_shards": (1, 2**20),
        "max_unreadable": (0, 0.5),
        "val_fraction": (0.001, 0.999),
        "split_seed": (0, 2**32 - 1),
        "image_size": (1, 4096),
        "crop_pct": (0.01, 1),
        "mean": (0, 1),
        "std": (0.001, 1000),
        "scale": (0.0001, 1),
        "ratio": (0.01, 100),
        "hflip": (0, 1),
        "vflip": (0, 1),
        "color_jitter": (0, 1),
        "random_erasing": (0, 1),
        "mixup": (0, 100),
        "cutmix": (0, 100),
        "mix_prob": (0, 1),
        "mix_switch_prob": (0, 1),
    }

    source: Literal["folder", "webdataset", "hf", "elpv"] = "folder"
    image_column: str | None = None
    label_column: str | None = None
    shuffle_shards: int | None = None
    cache: str | None = None
    max_unreadable: float = 0.0
    val_fraction: float = 0.25
    split_seed: int = 0
    soft_targets: bool = False
    image_size: int = 224
    crop_pct: float = 0.9
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    train_interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    auto_augment: str | None = None
    random_erasing: float = 0.0
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    mix_switch_prob: float = 0.5
    mix_mode: Literal["batch", "pair", "elem"] = "batch"

    def check(self) -> None:
        """Raises a UsageError for a pair of numbers that are not in order."""
        for key, (first, second) in (("scale", self.scale), ("ratio", self.ratio)):
            if first > second:
                raise UsageError(
                    f"data.{key} is [{first}, {second}], the first must be the smaller"
                )


@dataclass
class ClassificationRecipe(Recipe):
    """A run on labelled images."""

    task: Literal["classification"] = "classification"
    data: ClassificationData = field(default_factory=ClassificationData)
