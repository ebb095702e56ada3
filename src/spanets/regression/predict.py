"""Estimates numbers from images with a checkpoint."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image

from spanets.regression.scale import Scale
from spanets.sources import ReadyModel, Source
from spanets_runtime.listing import ImageSource
from spanets_runtime.measures import ValuePrediction, predict_values


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
        return predict_values(images, self._run, self.info.classes)

    @torch.inference_mode()
    def _run(self, image: Image.Image) -> NDArray[Any]:
        batch = torch.from_numpy(self.preprocess(image))[None].to(self.device)
        return self.scale.restore(self.model(batch)[0].float().cpu().numpy())
