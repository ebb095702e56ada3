"""Predicts masks with exported ONNX segmenters, without torch."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.listing import ImageSource
from spanets_runtime.masks import MaskPrediction, predict_masks, read_numbers
from spanets_runtime.onnx.engines import open_exported
from spanets_runtime.onnx.file import ExportedFile, can_be_free
from spanets_runtime.predict import check_answer
from spanets_runtime.resize_to_fit import ResizeToFit
from spanets_runtime.windows import windows

Array = NDArray[np.float32]

# Rows of a photograph to label at a time: with 150 classes and 4000 columns they take 77 MB.
_ROWS = 32


class OnnxMaskPredictor:
    """An exported segmenter with its preprocessing and class names.

    Args:
        source: Path of a file that `spanets export` wrote, or an open one.

    Raises:
        UserError: the runtime is missing, or the file is damaged, not from `spanets export`, not a
            segmenter or of a fixed size.
    """

    def __init__(self, source: str | Path | ExportedFile) -> None:
        self.file = file = source if isinstance(source, ExportedFile) else open_exported(source)
        file.check_outputs(["logits"], rank=4)
        if any(isinstance(side, int) for side in file.shape[2:]):
            way = "" if can_be_free(file.path) else "to a FILE.onnx, "
            raise UserError(
                f"{file.path}: takes only images of {file.shape[2]}x{file.shape[3]}, but masks "
                f"need any size; export it {way}without --static"
            )
        self.classes = file.classes(axis=1)
        self.fitting = ResizeToFit.parse(file.preprocessing, file.path)
        self.window = _read_window(file)
        self.numbers = read_numbers(file.preprocessing, len(self.classes), file.path)

    def __call__(self, images: Iterable[ImageSource], out: Path) -> Iterator[MaskPrediction]:
        """Writes the mask and overlay of each image; yields predictions. See `predict_masks`."""
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


def _read_window(file: ExportedFile) -> tuple[int, int] | None:
    """Returns stride and side of the sliding window, or None if the model sees whole images."""
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
    """Returns for each pixel the mean logits of all windows that contain it, (classes, h, w).

    Args:
        run: Function from pixels (3, h, w) to logits (classes, h, w).
        pixels: Preprocessed image (3, h, w), perhaps smaller than the window.
        window: Stride and side of the window, in pixels.
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
    """Returns the most likely class of each pixel, (H, W).

    The argmax of the bilinearly resized logits, as in `spanets.segmentation.labels.label_map`.
    To save memory, only some rows are resized at a time.

    Args:
        logits: Logits of one image, (classes, h, w).
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
    """
    labels = np.empty((height, width), np.uint8)
    columns = _neighbours(logits.shape[2], np.arange(width), width)
    for top in range(0, height, _ROWS):
        rows = _neighbours(logits.shape[1], np.arange(top, min(top + _ROWS, height)), height)
        strip = _blend(_blend(logits, *rows, axis=1), *columns, axis=2)  # (classes, rows, W)
        labels[top : top + _ROWS] = strip.argmax(0)
    return labels


def _neighbours(length: int, places: NDArray[Any], resized: int) -> tuple[Any, Any, Array]:
    """Returns for resized positions the two nearest source pixels and the interpolation weight."""
    exact = np.clip((places + 0.5) * (length / resized) - 0.5, 0, length - 1)
    low = exact.astype(np.int64)
    return low, np.minimum(low + 1, length - 1), (exact - low).astype(np.float32)


def _blend(values: Array, low: Any, high: Any, share: Array, axis: int) -> Array:
    near, far = values.take(low, axis), values.take(high, axis)
    return near + (far - near) * (share[:, None] if axis == 1 else share)
