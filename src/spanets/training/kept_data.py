"""What a run knows of its data: from its folder, and from a checkpoint in it."""

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
    """Returns what a run knows, for going on from one of its checkpoints or evaluating that.

    Args:
        folder: The run's.
        info: Of the checkpoint.
        content: Of the checkpoint; how far it was trained tells its split where there is no list.

    Raises:
        UserError: the list of the split is damaged.
    """
    return Kept(
        folder,
        split=read_split(folder),
        classes=info.classes,
        started=_read_start(folder),
        count_trained=partial(_count_trained, info, content),
    )


def _read_start(folder: Path) -> float | None:
    """Returns when the run began, in seconds since 1970."""
    with suppress(IndexError, KeyError, TypeError, ValueError):
        return datetime.fromisoformat(read_starts(folder)[0]["started"]).timestamp()
    return None


def _count_trained(info: ModelInfo, content: Mapping[str, Any]) -> range | None:
    return trained_images(content, parse_recipe(info.recipe, origin="the checkpoint"))


def trained_images(content: Mapping[str, Any], recipe: Recipe) -> range | None:
    """Returns how many images an epoch can have had, or None where a checkpoint does not tell.

    Batches are whole, as are updates: what does not fill the last is left out.
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
    fewest = 1 if batches == 1 else batches * size  # a set smaller than a batch makes a smaller one
    return range(fewest, (batches + accumulated) * size)
