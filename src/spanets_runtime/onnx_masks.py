"""Segmenters that `spanets export` wrote as ONNX: images to masks, without torch."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.fitting import Fitting
from spanets_runtime.listing import ImageSource
from spanets_runtime.masks import MaskPrediction, predict_masks, read_numbers
from spanets_runtime.onnx import OnnxFile
from spanets_runtime.predict import check_answer
from spanets_runtime.windows import windows

Array = NDArray[np.float32]

# Rows of a photograph that are labelled at a time: of 150 classes and 4000 columns 77 MB.
_ROWS = 32


class OnnxMaskPredictor:
    """An exported segmenter with its preprocessing and class names.

    Args:
        source: A file that `spanets export` wrote, or one that is open.

    Raises:
        UserError: no onnxruntime, or a file that is damaged, of another make, no segmenter or of
            a fixed size.
    """

    def __init__(self, source: str | Path | OnnxFile) -> None:
        self.file = file = source if isinstance(source, OnnxFile) else OnnxFile(source)
        file.check_outputs(["logits"], rank=4)
        if any(isinstance(side, int) for side in file.shape[2:]):
            raise UserError(
                f"{file.path}: is made for images of {file.shape[2]}x{file.shape[3]}, masks need "
                "any size; export it without --static to predict"
            )
        self.classes = file.classes(axis=1)
        self.fitting = Fitting.parse(file.preprocessing, file.path)
        self.window = _read_window(file)
        self.numbers = read_numbers(file.preprocessing, len(self.classes), file.path)

    def __call__(self, images: Iterable[ImageSource], out: Path) -> Iterator[MaskPrediction]:
        """Writes mask and overlay of each image, and yields what was found: `predict_masks`."""
        return predict_masks(images, self.label, self.classes, out, self.numbers)

    def label(self, image: Image.Image) -> NDArray[np.uint8]:
        """Returns the class of each pixel of an RGB image, (H, W)."""
        pixels = self.fitting(image)
        logits = self._run(pixels) if self.window is None else slide(self._run, pixels, self.window)
        check_answer(bool(np.isfinite(logits).all()))
        return label_map(logits, image.height, image.width)

    def _run(self, pixels: Array) -> Array:
        """Maps (3, h, w) to logits (classes, h, w)."""
        return self.file.run(pixels[None])[0][0]


def _read_window(file: OnnxFile) -> tuple[int, int] | None:
    """Returns step and side of the window, or None where images are seen whole."""
    test, window = file.preprocessing.get("test"), file.preprocessing.get("slide")
    if test == "whole":
        return None
    if test == "slide" and isinstance(window, list) and [type(x) for x in window] == [int, int]:
        stride, side = window
        if 0 < stride <= side:
            return stride, side
    raise UserError(
        f"{file.path}: the preprocessing is damaged (test is {test!r}, slide is {window!r})"
    )


def slide(run: Callable[[Array], Array], pixels: Array, window: tuple[int, int]) -> Array:
    """Returns the mean of the logits of all windows that see a pixel, (classes, h, w).

    Args:
        run: From pixels (3, h, w) to logits (classes, h, w).
        pixels: (3, h, w), perhaps smaller than the window.
        window: Its step and side, in pixels.
    """
    stride, side = window
    height, width = pixels.shape[1:]
    total: Any = None
    seen = np.zeros((height, width), np.float32)
    for rows, columns in windows(height, width, side, stride):
        logits = run(pixels[:, rows, columns])
        if total is None:
            total = np.zeros((len(logits), height, width), np.float32)
        total[:, rows, columns] += logits
        seen[rows, columns] += 1
    return total / seen


def label_map(logits: Array, height: int, width: int) -> NDArray[np.uint8]:
    """Returns the likeliest class of each pixel, (H, W).

    The maximum of the bilinearly resized logits, as `spanets.segmentation.labels.label_map`, of
    which only some rows exist at a time.

    Args:
        logits: Of one image, (classes, h, w).
        height: Of the result.
        width: Of the result.
    """
    labels = np.empty((height, width), np.uint8)
    columns = _neighbours(logits.shape[2], np.arange(width), width)
    for top in range(0, height, _ROWS):
        rows = _neighbours(logits.shape[1], np.arange(top, min(top + _ROWS, height)), height)
        strip = _blend(_blend(logits, *rows, axis=1), *columns, axis=2)  # (classes, rows, W)
        labels[top : top + _ROWS] = strip.argmax(0)
    return labels


def _neighbours(length: int, places: NDArray[Any], resized: int) -> tuple[Any, Any, Array]:
    """Returns between which two pixels of a side those of the resized side lie, and how far."""
    exact = np.clip((places + 0.5) * (length / resized) - 0.5, 0, length - 1)
    low = exact.astype(np.int64)
    return low, np.minimum(low + 1, length - 1), (exact - low).astype(np.float32)


def _blend(values: Array, low: Any, high: Any, share: Array, axis: int) -> Array:
    near, far = values.take(low, axis), values.take(high, axis)
    return near + (far - near) * (share[:, None] if axis == 1 else share)
