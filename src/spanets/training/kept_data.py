"""Reads what a run recorded about its data: split, classes, start and images trained on."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from spanets.checkpoint import ModelInfo
from spanets.data.kept import Kept
from spanets.data.split_list import read_split
from spanets.recipe import Recipe, parse_recipe
from spanets.runs.record import read_starts


def kept_of(folder: Path, info: ModelInfo, content: Mapping[str, Any]) -> Kept:
    """Returns a run's record of its data, to resume from or evaluate one of its checkpoints.

    Args:
        folder: The run folder.
        info: Metadata of the checkpoint.
        content: Content of the checkpoint; without split.csv, its progress counters give the
            number of training images.

    Raises:
        UserError: split.csv is damaged.
    """
    return Kept(
        folder,
        split=read_split(folder),
        classes=info.classes,
        started=_read_start(folder),
        count_trained=partial(_count_trained, info, content),
    )


def _read_start(folder: Path) -> float | None:
    """Returns the start of the run in seconds since 1970, or None if it is not recorded."""
    with suppress(IndexError, KeyError, TypeError, ValueError):
        return datetime.fromisoformat(read_starts(folder)[0]["started"]).timestamp()
    return None


def _count_trained(info: ModelInfo, content: Mapping[str, Any]) -> range | None:
    return trained_images(content, parse_recipe(info.recipe, origin="the checkpoint"))


def trained_images(content: Mapping[str, Any], recipe: Recipe) -> range | None:
    """Returns the possible numbers of training images, or None if the checkpoint cannot tell.

    It is a range, because images that do not fill the last batch or update are left out.
    """
    try:
        loop = content["loops"]["fit_loop"]
        seen = loop["epoch_loop.batch_progress"]
        whole = loop["epoch_progress"]["current"]["processed"]
        under_way = 0 if whole > content["epoch"] else seen["current"]["ready"]
        batches, rest = divmod(seen["total"]["ready"] - under_way, whole)
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    accumulated = recipe.trainer.accumulate
    size, odd = divmod(recipe.optim.batch_size, accumulated)
    if rest or odd or batches < 1:
        return None
    fewest = 1 if batches == 1 else batches * size  # a small data set is one smaller batch
    return range(fewest, (batches + accumulated) * size)
