"""Data sets of images with numbers: by part, and as loaders.

A batch is `(images (B, 3, S, S), targets (B, numbers))`, with standardized targets.
"""

from dataclasses import replace

import numpy as np

from spanets.data.image_level.dataset import make_image_loaders
from spanets.data.image_level.tables import source_of, table_splits
from spanets.data.loaders import Loaders
from spanets.data.run_data import RunData
from spanets.data.sampler import EpochSampler
from spanets.data.samples import Samples
from spanets.data.sources.table import is_table
from spanets.regression.recipe import RegressionData, RegressionRecipe
from spanets.regression.scale import Scale
from spanets.regression.tables import make_reader
from spanets_runtime.errors import UsageError, UserError


def read_parts(data: RegressionData, run_data: RunData | None = None) -> dict[str, Samples]:
    """Lists the images of a recipe's table by part: "train", "val" and perhaps "test".

    Raises:
        UsageError: no table is named.
        UserError: the data are missing or cannot be used.
    """
    if data.root is None:
        raise UsageError("data.root is not set; give the table: --data.root labels.csv")
    if not is_table(data.root):
        raise UsageError(
            f"data.root is {data.root!r}, must be a table of images and numbers: .csv, .tsv, "
            ".jsonl or .parquet"
        )
    source_of(data)
    return table_splits(data, run_data, make_reader(data.root, data))


def fit_values(samples: Samples, names: list[str], origin: str) -> Samples:
    """Returns images with the numbers of a model, in its order.

    Raises:
        UserError: they are no table's, or have other numbers.
    """
    if samples.targets is None:
        raise UserError(
            f"{origin}: has no numbers; name a table with the columns {', '.join(names)}"
        )
    if missing := [name for name in names if name not in samples.classes]:
        raise UserError(
            f"{origin}: the model estimates {', '.join(missing)}, and the table has "
            f"{', '.join(samples.classes)}"
        )
    places = [samples.classes.index(name) for name in names]
    return replace(samples, targets=np.asarray(samples.targets)[:, places], classes=names)


def make_loaders(
    recipe: RegressionRecipe, batch_size: int, processes: int, run_data: RunData
) -> tuple[Loaders, Scale]:
    """Makes the loaders of a recipe; returns them with the scale of the numbers.

    A resumed run keeps the scale of its checkpoint.
    """
    parts = read_parts(recipe.data, run_data)
    train = parts["train"]
    if run_data.head:
        scale = Scale.parse(run_data.head, len(train.classes), str(run_data.folder))
    else:
        scale = Scale.of(np.asarray(train.targets), train.classes, recipe.data.root)
    shown = ", ".join(
        f"{name} {mean:.6g} ± {std:.6g}"
        for name, mean, std in zip(train.classes, scale.mean, scale.std, strict=True)
    )
    parts["train"] = train.noted(
        [f"{recipe.data.root}: standardized by mean and deviation of the training images: {shown}"]
    )
    loaders = make_image_loaders(
        recipe.data,
        parts,
        EpochSampler(len(train), shuffle=True, seed=recipe.seed),
        lambda part: scale.standardize(np.asarray(part.targets)),
        batch_size,
        processes,
        seed=recipe.seed,
    )
    return loaders, scale
