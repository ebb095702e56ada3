"""Measures a cross-validation: each image by the model that was not trained on it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spanets.classification.errors import check_errors, report_answers
from spanets.classification.evaluation import (
    add_rank_metrics,
    as_classifier,
    classify,
    measure_batches,
    own_parts,
)
from spanets.classification.recipe import ClassificationRecipe
from spanets.classification.views import COMBINED, average_views
from spanets.data.folds import read_folds
from spanets.data.image_level.dataset import evaluation_loader, unreadable_of
from spanets.data.samples import Samples, map_classes
from spanets.training.mistakes import name_images
from spanets.training.options import EvalOptions
from spanets.training.own_data import info_recipe
from spanets_runtime.errors import UserError


def evaluate_folds(
    folder: Path, checkpoints: Mapping[int, Path], options: EvalOptions, batch_size: int
) -> dict[str, Any]:
    """Measures the validation images of all folds together.

    Args:
        folder: The folder of the folds.
        checkpoints: The checkpoint of each fold.
        options: `workers`, `trusted`, `errors` and `tta` count.
        batch_size: Images in a batch.

    Returns:
        See `classification.evaluation.evaluate`; the metrics are those of all images together, and
        not means over the folds.

    Raises:
        UserError: a checkpoint cannot be read, or the folds have other classes.
    """
    if options.errors is not None:
        check_errors(options.errors)
    walk = _Walk(checkpoints, options, batch_size)
    probabilities: list[NDArray[np.float32]] | None = None if options.errors is None else []
    measured, answers = measure_batches(walk.batches(), walk.classes, None, probabilities)
    add_rank_metrics(measured, walk.recipe)
    results = {
        "checkpoint": str(folder),
        "data": f"the validation images of {len(checkpoints)} folds",
        **measured,
        **({} if options.views is None else {"tta": options.views.describe(COMBINED)}),
        "unreadable": walk.unreadable,
        "notes": [*walk.shared_notes(), *_describe_unseen(folder, walk)],
    }
    samples = reduce(Samples.joined, walk.samples)
    scope = (
        f"{len(samples)} images were looked at, each by the model of a fold that was not trained "
        "on it"
    )
    pages = options.errors, probabilities, scope, walk.view
    report_answers(results, samples, walk.names, answers, *pages)
    return results


@dataclass
class _Walk:
    """Goes through the folds one after another; the lists grow as their images are measured."""

    checkpoints: Mapping[int, Path]
    options: EvalOptions
    batch_size: int
    samples: list[Samples] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    test_images: int = 0

    def __post_init__(self) -> None:
        first = as_classifier(next(iter(self.checkpoints.values())))
        self.classes, self.view = first.info.classes, first.preprocess.view
        self.recipe = info_recipe(first, ClassificationRecipe)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields logits and labels of the validation images of all folds."""
        for fold, path in self.checkpoints.items():
            source = as_classifier(path)
            if source.info.classes != self.classes:
                raise UserError(f"{path}: fold {fold} has other classes than the first fold")
            parts, root = own_parts(source, self.options.trusted)
            self.test_images = len(parts.get("test", ()))
            val = map_classes(parts["val"], self.classes)
            loader = evaluation_loader(
                val,
                source.info.preprocessing,
                self.batch_size,
                self.options.workers,
                max_unreadable=info_recipe(source, ClassificationRecipe).data.max_unreadable,
            )
            yield from classify(average_views(source, self.options.views), loader)
            found = unreadable_of(loader)
            found.gather()
            self.unreadable += found.describe()
            kept = found.readable()
            self.samples.append(kept)
            self.names += name_images(kept.images, root)

    def shared_notes(self) -> list[str]:
        """Returns the notes on the data that all folds have."""
        first, *others = (samples.notes for samples in self.samples)
        return [note for note in first if all(note in other for other in others)]


def _describe_unseen(folder: Path, walk: _Walk) -> list[str]:
    """Returns notes on images that no fold validates on."""
    folds, notes = read_folds(folder), []
    always = 0 if folds is None else sum(number < 0 for number in folds.numbers)
    if always:
        notes.append(f"{folder}: {always} images are for training in every fold, not measured")
    if walk.test_images:
        notes.append(f"{folder}: the {walk.test_images} images of test are not measured")
    return notes
