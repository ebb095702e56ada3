"""Rasterises objects' masks directly at the network's input size, without resizing masks."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.formats.coco.rle import Mask, decode_runs
from spanets_runtime.errors import require

Matrix = NDArray[np.float64]
"""(2, 3): the affine map from x and y in the file to the mask, see `Placement`."""


def fill(shape: Any, file_size: tuple[int, int], matrix: Matrix, size: tuple[int, int]) -> Mask:
    """Returns an object's mask (H, W) of 0 and 1 in a transformed image.

    Polygons are transformed and then filled, as in COCO's own tools. Run lengths are sampled at the
    centre of each pixel.

    Args:
        shape: Polygons or run lengths, in pixels of the file.
        file_size: Height and width of the image file.
        matrix: Affine map from the file to the mask.
        size: Height and width of the mask.

    Raises:
        UserError: filling polygons needs the extra `detection`.
    """
    if isinstance(shape, Mapping):
        return sample(decode_runs(shape["counts"], *file_size), matrix, size)
    return fill_polygons((move(polygon, matrix) for polygon in shape), size)


def fill_polygons(polygons: Iterable[list[float]], size: tuple[int, int]) -> Mask:
    """Fills polygons (x and y alternating) with COCO's own tools, and returns the mask (H, W)."""
    coco_mask = require("faster_coco_eval.core.mask", "detection")
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(list(polygons), *size)))


def move(polygon: list[float], matrix: Matrix) -> list[float]:
    """Applies an affine map to a polygon (x and y alternating)."""
    points = np.array(polygon).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]  # (points, 2)
    return points.ravel().tolist()


def sample(mask: Mask, matrix: Matrix, size: tuple[int, int]) -> Mask:
    """Applies an affine map to a mask, sampling it at the centre of each pixel."""
    if not matrix[0, 0]:  # after a quarter turn, x and y are swapped
        mask, matrix = mask.T, matrix[:, [1, 0, 2]]
    (columns, rows) = (
        _sources(matrix[axis, axis], matrix[axis, 2], count, limit)
        for axis, count, limit in ((0, size[1], mask.shape[1]), (1, size[0], mask.shape[0]))
    )
    return mask[rows][:, columns]


def _sources(scale: float, shift: float, count: int, limit: int) -> NDArray[np.int64]:
    """Returns the source index, below `limit`, of each of `count` pixels."""
    centres = (np.arange(count) + 0.5 - shift) / scale
    return np.floor(centres).astype(np.int64).clip(0, limit - 1)
