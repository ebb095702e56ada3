"""The recipe of several labels an image."""

from dataclasses import dataclass, field
from typing import Literal

from spanets.data.image_level.recipe import ImageLevelData, ImageLevelOptim, refuse_shards
from spanets.recipe.keys import key
from spanets.recipe.sections import Recipe
from spanets_runtime.errors import UsageError


@dataclass
class MultilabelData(ImageLevelData):
    """Images with any number of labels each, augmentation and preprocessing."""

    source: Literal["folder", "table"] = key(
        "folder",
        "Kind of data set: class folders, in which an image with several labels stands several "
        "times, or a table. With folder, a root that is a table is read as one.",
    )
    separator: str | None = key(
        None,
        "What separates the labels in a cell of a table, such as `|`; null finds it. Cells with a "
        "JSON list need none.",
    )
    label_columns: list[str] | None = key(
        None,
        "Columns of a table that hold 1 for images with the label of that name and 0 for others, "
        "as names or patterns such as `[red, blue]` or `[tag_*]`. null takes the column of labels "
        "or, without one, all columns of only 0 and 1.",
    )

    def check(self) -> None:
        """Raises a UsageError for keys that exclude each other."""
        super().check()
        refuse_shards(self)
        if self.separator is not None and self.label_columns is not None:
            raise UsageError(
                "data.separator is for one column of labels, and data.label_columns names several "
                "of 0 and 1; leave one of them out"
            )
        if self.label_column is not None and self.label_columns is not None:
            raise UsageError("data.label_column and data.label_columns: leave one of them out")


@dataclass
class MultilabelOptim(ImageLevelOptim):
    """Optimizer, schedule and loss."""

    loss: Literal["bce", "asymmetric"] = key(
        "bce",
        "Training loss: binary cross entropy of every label, or the asymmetric loss (Ridnik et "
        "al., 2021) for labels that most images lack. Validation always reports the plain binary "
        "cross entropy.",
    )
    gamma_pos: float = key(0.0, "γ+ of the asymmetric loss.", between=(0, 100))
    gamma_neg: float = key(4.0, "γ- of the asymmetric loss.", between=(0, 100))
    margin: float = key(
        0.05,
        "m of the asymmetric loss: probability below which an absent label costs nothing.",
        between=(0, 0.999),
    )
    pos_weight: Literal["balanced"] | list[float] | None = key(
        None,
        "Weight of the images that have a label, in that label's loss: balanced is the number of "
        "images without it over those with it; or a list in the order of the labels.",
        between=(0, 10**6),
    )

    def check(self) -> None:
        """Raises a UsageError for keys that exclude each other."""
        super().check()
        if self.loss == "asymmetric" and self.label_smoothing:
            raise UsageError(
                "optim.label_smoothing is for optim.loss bce, not asymmetric; set it to 0"
            )


@dataclass
class MultilabelRecipe(Recipe):
    """A run on images with any number of labels each."""

    task: Literal["multilabel"] = "multilabel"
    data: MultilabelData = field(default_factory=MultilabelData)
    optim: MultilabelOptim = field(default_factory=MultilabelOptim)
