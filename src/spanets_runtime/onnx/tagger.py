"""Predicts several labels an image with exported ONNX files, without torch."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from spanets_runtime.listing import ImageSource
from spanets_runtime.onnx.classifier import OnnxPredictor
from spanets_runtime.onnx.file import ExportedFile
from spanets_runtime.tags import TagPrediction, predict_tags, read_thresholds


class OnnxTagger(OnnxPredictor):
    """An exported model of several labels an image, with its preprocessing, names and thresholds.

    Args:
        source: Path of a file that `spanets export` wrote, or an open one.

    Raises:
        UserError: see `OnnxPredictor`.
    """

    def __init__(self, source: str | Path | ExportedFile) -> None:
        super().__init__(source)
        self.thresholds = read_thresholds(self.file.metadata, len(self.classes), self.file.path)

    def __call__(  # type: ignore[override]
        self, images: Iterable[ImageSource], top: int = 5
    ) -> Iterator[TagPrediction]:
        """Yields a prediction for each image, as `predict_tags` does."""
        chosen, read = self.preprocess.choose(images), self.preprocess.read
        return predict_tags(chosen, self._classify, self.classes, self.thresholds, top, read)
