"""Counts what a run's model costs."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from spanets.bench.costs import count_macs
from spanets.data.run_data import trained_images
from spanets.data.split_list import read_split
from spanets.recipe import parse_recipe
from spanets.report.content import Content
from spanets.sources import Source
from spanets_runtime.errors import UserError
from spanets_runtime.text import format_duration

Row = tuple[str, str]


def describe_cost(content: Content) -> Iterator[Row]:
    """Yields rows of name and value: parameters, operations, times."""
    run, source, results = content.run, content.source, content.results
    if source is not None:
        count = sum(parameter.numel() for parameter in source.network.parameters())
        yield "parameters", f"{count:,}"
        yield "multiply-accumulates an image", _describe_macs(source)
    elif "parameters" in results:
        yield "parameters", f"{results['parameters']:,}"
    if content.checkpoint is not None:
        size = content.checkpoint.stat().st_size / 1e6
        yield "checkpoint", f"{size:.1f} MB, with the state of the optimizer"
    if run.seconds:
        yield "time of training", f"{format_duration(run.seconds)}, with validation"
        if (images := _images_an_epoch(source, run.folder)) and run.epochs:
            rate = images * run.epochs / run.seconds
            yield "training", f"{rate:.3g} images/s, with validation"
    examples = content.examples
    if examples is not None and examples.seconds and len(examples.images):
        rate = len(examples.images) / examples.seconds
        yield "prediction", f"{rate:.3g} images/s here, with reading; {len(examples.images)} images"


def _describe_macs(source: Source) -> str:
    size = source.info.preprocessing.get("input_size")
    if size is None:
        return "not counted: the model takes images of any size"
    try:
        # Kernels of a GPU would not be counted; on the meta device there are none.
        macs = count_macs(copy.deepcopy(source.network).to("meta"), tuple(size[-2:]))
    except Exception:  # networks check their input in many ways
        return "not counted: the operations of this model cannot be followed"
    shown = f"{macs / 1e9:.3g} G" if macs >= 1e9 else f"{macs / 1e6:.3g} M"
    return f"{shown} at {size[-2]}x{size[-1]}"


def _images_an_epoch(source: Source | None, folder: Path) -> int | None:
    """Returns the number of images that an epoch trains on, or None if it is not known."""
    if source is None:
        return None
    recipe = parse_recipe(source.info.recipe, origin=source.word)
    found = trained_images(source.content, recipe)
    if found is None or found.start > 1:  # whole batches: the rest is left out
        return None if found is None else found.start
    with suppress(UserError):
        if (listed := read_split(folder)) is not None:
            count = list(listed.parts.values()).count("train")
            return min(count, recipe.optim.batch_size // recipe.trainer.accumulate)
    return None
