"""Predicts masks with a segmenter's checkpoint."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from spanets.segmentation import infer
from spanets.segmentation.labels import label_map
from spanets.sources import ReadyModel, Source
from spanets_runtime.listing import ImageSource
from spanets_runtime.masks import MaskPrediction, predict_masks, read_numbers
from spanets_runtime.predict import check_answer


class MaskPredictor(ReadyModel):
    """A segmenter's checkpoint with its preprocessing and class names.

    Args:
        source: A checkpoint or its path.
        device: Name of a device; None means a GPU if there is one.

    Raises:
        WeightsError: the checkpoint cannot be read.
        UserError: the preprocessing in it is damaged.
    """

    def __init__(self, source: Source | str | Path, device: str | None = None) -> None:
        super().__init__(source, device)
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
        pixels = torch.from_numpy(self.preprocess(image))[None].to(self.device)
        logits = infer(self.model, pixels, self.info.preprocessing)
        check_answer(not check or bool(torch.isfinite(logits).all()))
        return label_map(logits, image.height, image.width).cpu().numpy().astype(np.uint8)
