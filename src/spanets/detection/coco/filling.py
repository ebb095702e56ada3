"""Objects' masks at the size that a network sees them at, made there and not shrunk to it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.detection.coco.rle import Mask, decode_runs
from spanets_runtime.errors import require

Matrix = NDArray[np.float64]
"""(2, 3): from the file's x and y to those of the mask, see `Placement`."""


def fill(shape: Any, file_size: tuple[int, int], matrix: Matrix, size: tuple[int, int]) -> Mask:
    """Returns an object's mask (H, W) of 0 and 1 in an image that was moved and resized.

    Polygons are moved, then filled as COCO's own tools do. Run lengths have each pixel's value at
    its centre.

    Args:
        shape: Polygons or run lengths, in the file's pixels.
        file_size: Height and width of the image in its file.
        matrix: Where the file's pixels lie.
        size: Height and width of the mask.

    Raises:
        UserError: filling polygons needs the extra `detection`.
    """
    if isinstance(shape, Mapping):
        return sample(decode_runs(shape["counts"], *file_size), matrix, size)
    return fill_polygons((move(polygon, matrix) for polygon in shape), size)


def fill_polygons(polygons: Iterable[list[float]], size: tuple[int, int]) -> Mask:
    """Returns polygons, x and y in turn, as a mask (H, W), as COCO's own tools fill them."""
    coco_mask = require("faster_coco_eval.core.mask", "detection")
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(list(polygons), *size)))


def move(polygon: list[float], matrix: Matrix) -> list[float]:
    """Returns a polygon, x and y in turn, where it lies after the map."""
    points = np.array(polygon).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]  # (points, 2)
    return points.ravel().tolist()


def sample(mask: Mask, matrix: Matrix, size: tuple[int, int]) -> Mask:
    """Returns a mask of the file moved and resized; each pixel has the value at its centre."""
    if not matrix[0, 0]:  # a quarter turn: x now goes along the file's columns
        mask, matrix = mask.T, matrix[:, [1, 0, 2]]
    (columns, rows) = (
        _sources(matrix[axis, axis], matrix[axis, 2], count, limit)
        for axis, count, limit in ((0, size[1], mask.shape[1]), (1, size[0], mask.shape[0]))
    )
    return mask[rows][:, columns]


def _sources(scale: float, shift: float, count: int, limit: int) -> NDArray[np.int64]:
    """Returns the index, of `limit`, that each of `count` pixels has its value from."""
    centres = (np.arange(count) + 0.5 - shift) / scale
    return np.floor(centres).astype(np.int64).clip(0, limit - 1)
