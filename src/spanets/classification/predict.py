"""Predicts labels with a classifier's checkpoint."""

from collections.abc import Iterable, Iterator

from spanets.sources import ReadyModel
from spanets_runtime.listing import ImageSource
from spanets_runtime.predict import Prediction, predict_images


class Predictor(ReadyModel):
    """A classifier's checkpoint with its preprocessing and class names.

    Args:
        source: A checkpoint or its path.
        device: Name of a device; None takes a GPU if there is one.

    Raises:
        WeightsError: the checkpoint cannot be read.
        UserError: the preprocessing in it is damaged.
    """

    def __call__(self, images: Iterable[ImageSource], top: int = 5) -> Iterator[Prediction]:
        """Yields a prediction for each image, as `predict_images` does.

        Args:
            images: Image paths.
            top: Largest number of classes for each image.
        """
        chosen, read = self.preprocess.choose(images), self.preprocess.read
        return predict_images(chosen, self.run, self.info.classes, top, read)
