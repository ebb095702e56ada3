"""Classifies images with exported ONNX classifiers, without torch."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.listing import ImageSource
from spanets_runtime.onnx.engines import open_exported
from spanets_runtime.onnx.file import ExportedFile, can_be_free
from spanets_runtime.predict import Prediction, predict_images
from spanets_runtime.preprocessing import Pixels, Preprocessing


class OnnxPredictor:
    """An exported classifier with its preprocessing and class names.

    Models of other tasks with one row of outputs for each image derive from it.

    Args:
        source: Path of a file that `spanets export` wrote, or an open one.
        threads: Threads of one operator; None means onnxruntime's choice.
        calibrated: Whether to divide the logits by the temperature in the file.
        mirrored: Whether to average probabilities over an image and its mirror image.

    Raises:
        UsageError: `calibrated`, and the file has no temperature.
        UserError: the runtime is missing, or the file is damaged, not from `spanets export` or not
            a classifier.
    """

    output = "logits"

    def __init__(
        self,
        source: str | Path | ExportedFile,
        threads: int | None = None,
        calibrated: bool = False,
        mirrored: bool = False,
    ) -> None:
        self.file = file = (
            source if isinstance(source, ExportedFile) else open_exported(source, threads)
        )
        file.check_outputs([self.output], rank=2)
        self.classes = file.classes(axis=-1)
        self.preprocess = Preprocessing.parse(file.preprocessing, file.path)
        _check_size(file.shape, self.preprocess, file.path)
        self.temperature = _temperature_of(file) if calibrated else 1.0
        self.mirrored = mirrored

    def __call__(self, images: Iterable[ImageSource], top: int = 5) -> Iterator[Prediction]:
        """Yields a prediction for each image, as `predict_images` does.

        Args:
            images: Paths of the images.
            top: Number of classes for each image; all if there are fewer.
        """
        chosen, read = self.preprocess.choose(images), self.preprocess.read
        return predict_images(chosen, self._classify, self.classes, top, read)

    def _classify(self, image: Pixels) -> NDArray[Any]:
        pixels = self.preprocess(image)[None]
        logits = self._run(pixels)
        if self.mirrored:
            both = logits, self._run(np.ascontiguousarray(pixels[..., ::-1]))
            return np.logaddexp(*(row - np.logaddexp.reduce(row) for row in both))
        return logits

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        """Returns the logits (classes,) of pixels (1, C, S, S), divided by the temperature."""
        logits = self.file.run(pixels)[0]
        if np.shape(logits) != (1, len(self.classes)):
            raise UserError(
                f"{self.file.path}: damaged, outputs {np.shape(logits)} for an image, not "
                f"(1, {len(self.classes)}); export it again"
            )
        return logits[0].astype(np.float64) / self.temperature


def _temperature_of(file: ExportedFile) -> float:
    fitted = file.metadata.get("calibration")
    if fitted is None:
        raise UsageError(
            f"--calibrated: {file.path} has no temperature; fit one with: spanets eval CHECKPOINT "
            "--calibrate, and export it again"
        )
    value = fitted.get("temperature") if isinstance(fitted, dict) else None
    if not isinstance(value, float) or not 0 < value < math.inf:
        raise UserError(f"{file.path}: damaged, its temperature is {value!r}; export it again")
    return value


def _check_size(shape: list[int | str], preprocess: Preprocessing, path: str | Path) -> None:
    """Raises UserError if a fixed input shape differs from that of a preprocessed image."""
    size = preprocess.size
    expected = (1, preprocess.channels, size, size)
    if any(isinstance(n, int) and n != m for n, m in zip(shape, expected, strict=True)):
        made, given = ("x".join(map(str, numbers)) for numbers in (shape, expected))
        or_free = ", or without --static" if can_be_free(path) else ""
        raise UserError(
            f"{path}: takes inputs of {made}, but its preprocessing gives {given}; export it with "
            f"--size {size}{or_free}"
        )
