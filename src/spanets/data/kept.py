"""What a run recorded about its data, so that it can be resumed and evaluated on the same split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spanets.data.split_list import SplitList


@dataclass(frozen=True)
class Kept:
    """What a run's folder and checkpoint say about its data.

    Attributes:
        folder: The run folder.
        is_new: Whether the run starts now, with no split to follow.
        split: The run's split list; None if no split was drawn or recorded.
        classes: Class names of the checkpoint, or None.
        started: Start of the run in seconds since 1970, or None.
        count_trained: Returns the possible numbers of images in an epoch, from the checkpoint's
            step count, or None if unknown.
    """

    folder: Path
    is_new: bool = False
    split: SplitList | None = None
    classes: Sequence[str] | None = None
    started: float | None = None
    count_trained: Callable[[], range | None] = lambda: None
