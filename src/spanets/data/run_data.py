"""What a run recorded about its data, so that it can be resumed and evaluated on the same split."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from spanets.checkpoint import ModelInfo
from spanets.data.split_list import SplitList, read_split
from spanets.recipe import Recipe, parse_recipe
from spanets.runs.record import read_starts


@dataclass(frozen=True)
class RunData:
    """What a run's folder and checkpoint say about its data.

    Attributes:
        folder: The run folder.
        is_new: Whether the run starts now, with no split to follow.
        split: The run's split list; None if no split was drawn or recorded.
        classes: Class names of the checkpoint, or None.
        started: Start of the run in seconds since 1970, or None.
        count_trained: Returns the possible numbers of images in an epoch, from the checkpoint's
            step count, or None if unknown.
        head: See `ModelInfo`, of the checkpoint; {} without one.
    """

    folder: Path
    is_new: bool = False
    split: SplitList | None = None
    classes: Sequence[str] | None = None
    started: float | None = None
    count_trained: Callable[[], range | None] = lambda: None
    head: Mapping[str, Any] = field(default_factory=dict)


def read_run_data(folder: Path, info: ModelInfo, content: Mapping[str, Any]) -> RunData:
    """Returns a run's record of its data, to resume from or evaluate one of its checkpoints.

    Args:
        folder: The run folder.
        info: Metadata of the checkpoint.
        content: Content of the checkpoint; without split.csv, its progress counters give the
            number of training images.

    Raises:
        UserError: split.csv is damaged.
    """
    return RunData(
        folder,
        split=read_split(folder),
        classes=info.classes,
        head=info.head,
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
