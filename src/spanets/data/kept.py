"""What a run knows of the data that it began with: for going on with it, and for evaluating it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spanets.data.split_list import SplitList


@dataclass(frozen=True)
class Kept:
    """What is known from a run's folder and its checkpoint.

    Attributes:
        folder: The run's.
        is_new: The run begins now: there is nothing to keep to.
        split: Which image is in which part; None where that was not drawn, or not kept.
        classes: The checkpoint's, or None.
        started: When the run began, in seconds since 1970, or None.
        count_trained: Returns how many images an epoch can have had, by the checkpoint; None where
            it does not tell.
    """

    folder: Path
    is_new: bool = False
    split: SplitList | None = None
    classes: Sequence[str] | None = None
    started: float | None = None
    count_trained: Callable[[], range | None] = lambda: None
