"""Estimates numbers from images with a checkpoint."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spanets.regression.scale import Scale
from spanets.sources import ReadyModel, Source
from spanets_runtime.listing import ImageSource
from spanets_runtime.measures import ValuePrediction, predict_values
from spanets_runtime.preprocessing import Pixels


class Regressor(ReadyModel):
    """A checkpoint with its preprocessing, and the names and scale of its numbers.

    Args:
        source: A checkpoint or its path.
        device: Name of a device; None takes a GPU if there is one.

    Raises:
        UserError: the checkpoint cannot be read, or its preprocessing or scale is damaged.
    """

    def __init__(self, source: Source | str | Path, device: str | None = None) -> None:
        super().__init__(source, device)
        self.scale = Scale.read(self.info, self.source.word)

    def __call__(self, images: Iterable[ImageSource]) -> Iterator[ValuePrediction]:
        """Yields a prediction for each image, as `predict_values` does."""
        chosen, read = self.preprocess.choose(images), self.preprocess.read
        return predict_values(chosen, self._estimate, self.info.classes, read)

    def _estimate(self, image: Pixels) -> NDArray[np.float64]:
        """Returns the numbers of a decoded image in the data's units."""
        return self.scale.restore(self.run(image))
