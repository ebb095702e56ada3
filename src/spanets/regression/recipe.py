"""The recipe of numbers from images."""

from dataclasses import dataclass, field
from typing import Literal

from spanets.data.image_level.recipe import ImageLevelData, ImageLevelOptim, refuse_shards
from spanets.recipe.keys import key
from spanets.recipe.sections import Recipe
from spanets_runtime.errors import UsageError


@dataclass
class RegressionData(ImageLevelData):
    """Images with one or more numbers each, augmentation and preprocessing."""

    root: str | None = key(
        None, "Table of the images and their numbers: .csv, .tsv, .jsonl, .parquet."
    )
    source: Literal["table"] = key("table", "Kind of data set.")
    targets: list[str] | None = key(
        None, "Columns of the numbers, such as `[age, height]`; null takes the column of labels."
    )

    def check(self) -> None:
        """Raises a UsageError for keys that exclude each other."""
        super().check()
        refuse_shards(self)
        if self.targets is not None and self.label_column is not None:
            raise UsageError("data.targets and data.label_column: leave one of them out")


@dataclass
class RegressionOptim(ImageLevelOptim):
    """Optimizer, schedule and loss."""

    loss: Literal["mse", "mae", "huber"] = key(
        "mse",
        "Loss of the standardized numbers: mean squared error, mean absolute error, or Huber's, "
        "which is squared below `huber_delta` and linear above.",
    )
    huber_delta: float = key(
        1.0,
        "Error from which Huber's loss is linear, in standard deviations of the training data.",
        between=(1e-6, 1000),
    )

    def check(self) -> None:
        """Raises a UsageError for keys of other tasks."""
        super().check()
        if self.label_smoothing:
            raise UsageError(
                "optim.label_smoothing is for classes, not for regression; set it to 0"
            )


@dataclass
class RegressionRecipe(Recipe):
    """A run on images with numbers."""

    task: Literal["regression"] = "regression"
    data: RegressionData = field(default_factory=RegressionData)
    optim: RegressionOptim = field(default_factory=RegressionOptim)
