"""What the evaluations of tasks on whole images share: the images to measure, and the outputs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spanets.data.image_level.dataset import evaluation_loader, unreadable_of
from spanets.data.loaders import plain_worker_errors
from spanets.data.ranks import in_order
from spanets.data.run_data import RunData, read_run_data
from spanets.data.samples import Samples
from spanets.recipe import Recipe
from spanets.sources import Source
from spanets.training.named_images import MakeReader, Merge, as_they_are, named_images
from spanets.training.options import EvalOptions
from spanets.training.own_data import info_recipe, own_recipe
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.listing import spread_evenly

R = TypeVar("R", bound=Recipe)

ReadParts = Callable[[Any, RunData | None], dict[str, Samples]]
"""Function from a recipe's data section and the run's record to the images by part."""


@dataclass(frozen=True)
class Measured:
    """The outputs of a model for labelled images.

    Attributes:
        part: Name of the part of the run's own data set, or the measured folder or table.
        is_val: Whether these are the run's own validation images.
        outputs, targets: (images, outputs), of the readable images.
        left_out: A line for each unreadable image.
        notes: Lines about the data.
        samples: The readable images.
        total: Number of images of the part; more than were measured if a limit was given.
        seconds: Time of reading the images and computing the outputs.
    """

    part: str
    is_val: bool
    outputs: NDArray[np.float64]
    targets: NDArray[np.float64]
    left_out: list[str]
    notes: list[str]
    samples: Samples
    total: int
    seconds: float

    def describe(self, word: str) -> dict[str, Any]:
        """Returns what `Task.evaluate` returns of every task but the metrics."""
        found = {"checkpoint": word, "data": self.part, "images": len(self.targets)}
        return {**found, "unreadable": self.left_out, "notes": self.notes}


def measure_images(
    source: Source,
    options: EvalOptions,
    kind: type[R],
    read_parts: ReadParts,
    make_reader: MakeReader,
    fit: Callable[[Samples], Samples],
    part: str | None = None,
    merge: Merge = as_they_are,
    limit: int | None = None,
) -> Measured:
    """Runs a model on the images of a folder or table or, without one, on the run's own.

    Args:
        source: A checkpoint or an exported file.
        options: The options of the evaluation.
        kind: Class of the task's recipes.
        read_parts: Lists the images of a run's own data set.
        make_reader: Makes what reads the targets of a table.
        fit: Returns images with the model's targets.
        part: Part of the run's own images; None means "test", or else "val".
        merge: Makes other targets of class folders.
        limit: Largest number of images, evenly spread; None measures all.

    Raises:
        UsageError: an exported file without a data set, or a checkpoint that may not choose one.
        UserError: the data cannot be used.
    """
    recipe = info_recipe(source, kind) if source.is_checkpoint else None
    if options.root is not None:
        place, samples = named_images(options.root, source, recipe, make_reader, merge)
    elif recipe is None:
        raise UsageError(
            f"{source.word} does not tell its test images; name a data set with --data"
        )
    else:
        parts = _own_parts(source, kind, options.trusted, read_parts)
        place = part or ("test" if "test" in parts else "val")
        samples = parts[place]
    samples, total, started = fit(samples), len(samples), time.monotonic()
    if limit is not None:
        samples = samples.subset(spread_evenly(range(total), limit))
    most = 0.0 if recipe is None else _max_unreadable(recipe)
    loader = evaluation_loader(
        samples,
        source.info.preprocessing,
        options.batch_size or 64,
        options.workers,
        max_unreadable=most,
        targets=samples.targets,
    )
    found = list(run_batches(source.network, loader))
    if not found:
        raise UserError(f"{place}: no readable images")
    outputs, targets = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    unreadable = unreadable_of(loader)
    unreadable.gather()
    is_val = options.root is None and place == "val"
    return Measured(
        place,
        is_val,
        outputs,
        targets,
        unreadable.describe(),
        list(samples.notes),
        unreadable.readable(),
        total,
        time.monotonic() - started,
    )


def _max_unreadable(recipe: Any) -> float:
    return recipe.data.max_unreadable


def _own_parts(
    source: Source, kind: type[R], trusted: bool, read_parts: ReadParts
) -> dict[str, Samples]:
    """Returns the images of the run's own data set by part."""
    recipe = own_recipe(source, kind, trusted)
    assert source.path is not None
    try:
        run_data = read_run_data(source.path.parent, source.info, source.content)
        return read_parts(recipe.data, run_data)
    except UserError as error:
        raise UserError(f"{error}; or name a data set with --data") from None


@torch.inference_mode()
def run_batches(
    model: nn.Module, loader: DataLoader[Any]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yields outputs and targets, both (B, outputs); computes on a GPU if there is one.

    Within `shared_batches`, every process yields the batches of all, in the order of one process.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()

    def compute(batch: list[Tensor]) -> tuple[Tensor, Tensor] | None:
        images, targets = batch
        if not len(targets):  # no image of the batch is readable
            return None
        outputs = model(images.to(device)).float()
        return outputs.double().cpu(), targets.double()

    with plain_worker_errors():
        for found in filter(None, in_order(loader, compute, "evaluate")):
            yield found[0].numpy(), found[1].numpy()


def plain_metrics(values: Mapping[str, float]) -> dict[str, float | None]:
    """Returns metrics for JSON; an undefined one is None."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
