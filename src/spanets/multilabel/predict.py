"""Predicts several labels an image with a checkpoint."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from spanets.sources import ReadyModel, Source
from spanets_runtime.listing import ImageSource
from spanets_runtime.tags import TagPrediction, predict_tags, read_thresholds


class Tagger(ReadyModel):
    """A checkpoint with its preprocessing, and the names and thresholds of its labels.

    Args:
        source: A checkpoint or its path.
        device: Name of a device; None takes a GPU if there is one.

    Raises:
        UserError: the checkpoint cannot be read, or its preprocessing or thresholds are damaged.
    """

    def __init__(self, source: Source | str | Path, device: str | None = None) -> None:
        super().__init__(source, device)
        count = len(self.info.classes)
        self.thresholds = read_thresholds(self.info.calibration, count, self.source.word)

    def __call__(self, images: Iterable[ImageSource], top: int = 5) -> Iterator[TagPrediction]:
        """Yields a prediction for each image, as `predict_tags` does."""
        chosen, read = self.preprocess.choose(images), self.preprocess.read
        return predict_tags(chosen, self.run, self.info.classes, self.thresholds, top, read)
