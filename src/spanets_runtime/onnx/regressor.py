"""Estimates numbers from images with exported ONNX files, without torch."""

from collections.abc import Iterable, Iterator

from spanets_runtime.listing import ImageSource
from spanets_runtime.measures import ValuePrediction, predict_values
from spanets_runtime.onnx.classifier import OnnxPredictor


class OnnxRegressor(OnnxPredictor):
    """An exported model of numbers; its graph outputs them in the unit of the training data."""

    output = "values"

    def __call__(  # type: ignore[override]
        self, images: Iterable[ImageSource]
    ) -> Iterator[ValuePrediction]:
        """Yields a prediction for each image, as `predict_values` does."""
        chosen, read = self.preprocess.choose(images), self.preprocess.read
        return predict_values(chosen, self._classify, self.classes, read)
