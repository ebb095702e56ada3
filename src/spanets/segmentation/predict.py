"""Predicts masks with a segmenter's checkpoint."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spanets.segmentation.labels import label_map
from spanets.segmentation.views import infer_views, label_tiled
from spanets.sources import ReadyModel, Source
from spanets.training.options import Views
from spanets_runtime.listing import ImageSource
from spanets_runtime.masks import MaskPrediction, predict_masks, read_numbers
from spanets_runtime.predict import check_answer
from spanets_runtime.windows import Tiling


class MaskPredictor(ReadyModel):
    """A segmenter's checkpoint with its preprocessing and class names.

    Args:
        source: A checkpoint or its path.
        device: Name of a device; None means a GPU if there is one.
        tiling: Tiles in which to predict; None means whole images.
        views: The views that are averaged, see `infer_views`; None takes the image.

    Raises:
        WeightsError: the checkpoint cannot be read.
        UserError: the preprocessing in it is damaged.
    """

    def __init__(
        self,
        source: Source | str | Path,
        device: str | None = None,
        tiling: Tiling | None = None,
        views: Views | None = None,
    ) -> None:
        super().__init__(source, device)
        self.tiling, self.views = tiling, views
        classes = len(self.info.classes)
        self.numbers = read_numbers(self.info.preprocessing, classes, self.source.word)

    def __call__(self, images: Iterable[ImageSource], out: Path) -> Iterator[MaskPrediction]:
        """Writes mask and overlay of each image, and yields predictions; see `predict_masks`."""
        return predict_masks(images, self._label_checked, self.info.classes, out, self.numbers)

    def _label_checked(self, image: Image.Image) -> NDArray[np.uint8]:
        return self.label(image, check=True)

    @torch.inference_mode()
    def label(self, image: Image.Image, check: bool = False) -> NDArray[np.uint8]:
        """Returns the class of each pixel of an RGB image, (H, W).

        Args:
            image: An RGB image of any size.
            check: Whether to raise on logits that are not finite; if not, such pixels get class 0.

        Raises:
            AnswerError: logits are not finite, and `check` is true.
        """
        infer = partial(self._infer, check=check)
        if self.tiling is not None and len(self.tiling.tiles(*image.size)) > 1:
            return label_tiled(infer, image, self.tiling)
        return label_map(infer(image), image.height, image.width).cpu().numpy().astype(np.uint8)

    def _infer(self, image: Image.Image, check: bool) -> Tensor:
        pixels = torch.from_numpy(self.preprocess(image))[None].to(self.device)
        logits = infer_views(self.model, pixels, self.info.preprocessing, self.views)
        check_answer(not check or bool(torch.isfinite(logits).all()))
        return logits
