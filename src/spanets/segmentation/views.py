"""Segments views of an image: tiles, mirror images, scales, corners; averages probabilities."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spanets.segmentation.sliding import infer
from spanets.training.options import Views
from spanets_runtime.resize_to_fit import MIN_SIDE
from spanets_runtime.windows import Box, Tiling, corners

COMBINED = "probabilities averaged"
"""What is done with the results of several views."""

CORNER = 3 / 4
"""Sides of a corner, as a fraction of the image's."""


def infer_views(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    preprocessing: Mapping[str, Any],
    views: Views | None,
) -> Tensor:
    """Returns logits (B, classes, H, W) of images, perhaps averaged over several views.

    Args:
        model: The segmenter, in evaluation mode.
        images: (B, 3, H, W).
        preprocessing: See `infer`.
        views: The views, or None for the images alone. With views the result is the logarithm of
            the mean probability; a corner counts for its own pixels.
    """
    if views is None:
        return infer(model, images, preprocessing)
    find = partial(_add_mirrored, model, preprocessing=preprocessing)
    size = images.shape[2:]
    total, seen = None, images.new_full(size, 2.0 * len(views.scales), dtype=torch.float32)
    for scale in views.scales:
        sides = [max(MIN_SIDE, round(side * scale)) for side in size] if scale != 1 else size
        shares = find(_resize(images, sides, antialias=True), size)
        total = shares if total is None else torch.logaddexp(total, shares)
    assert total is not None, "no scale"
    for left, top, right, bottom in corners(size[1], size[0], CORNER) if views.corners else ():
        here = (..., slice(top, bottom), slice(left, right))
        shares = find(_resize(images[here], size, antialias=True), (bottom - top, right - left))
        total[here] = torch.logaddexp(total[here], shares)
        seen[here] += 2
    return total - seen.log()


def _add_mirrored(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    size: Sequence[int],
    preprocessing: Mapping[str, Any],
) -> Tensor:
    """Returns the logarithm of the probabilities of images plus those of their mirror images."""
    plain = infer(model, images, preprocessing).float()
    mirrored = infer(model, images.flip(-1), preprocessing).float().flip(-1)
    return torch.logaddexp(*(_resize(view, size).log_softmax(1) for view in (plain, mirrored)))


def _resize(values: Tensor, size: Sequence[int], antialias: bool = False) -> Tensor:
    if values.shape[2:] == torch.Size(size):
        return values
    return F.interpolate(values, list(size), mode="bilinear", antialias=antialias)


# ---- tiles


def label_tiled(
    infer_tile: Callable[[Image.Image], Tensor], image: Image.Image, tiling: Tiling
) -> NDArray[np.uint8]:
    """Returns the class of each pixel, (H, W), from probabilities averaged where tiles overlap.

    Only probabilities of overlaps that wait for another tile stay in memory.

    Args:
        infer_tile: Maps an RGB image to logits (1, classes, h, w) of any size.
        image: An RGB image.
        tiling: The tiles, two or more.
    """
    labels = np.zeros((image.height, image.width), np.uint8)
    waiting: dict[Box, Tensor] = {}
    tiles = tiling.tiles(*image.size)
    cells_of = _divide(tiles)
    missing = Counter(cell for cells in cells_of for cell in cells)
    for tile, cells in zip(tiles, cells_of, strict=True):
        left, top, right, bottom = tile
        logits = infer_tile(image.crop(tile)).float()
        shares = _resize(logits, (bottom - top, right - left))[0].softmax(0)
        for cell in cells:
            here = shares[:, cell[1] - top : cell[3] - top, cell[0] - left : cell[2] - left]
            total = waiting.pop(cell) + here if cell in waiting else here
            missing[cell] -= 1
            if missing[cell]:
                waiting[cell] = total.clone()  # a view would keep the whole tile
            else:
                classes = total.argmax(0).cpu().numpy()
                labels[cell[1] : cell[3], cell[0] : cell[2]] = classes
    return labels


def _divide(tiles: Sequence[Box]) -> list[list[Box]]:
    """Returns, for each tile, the cells into which the borders of all tiles divide it."""
    columns = sorted({side for tile in tiles for side in (tile[0], tile[2])})
    rows = sorted({side for tile in tiles for side in (tile[1], tile[3])})
    return [
        [
            (left, top, right, bottom)
            for top, bottom in pairwise(rows)
            if tile[1] <= top and bottom <= tile[3]
            for left, right in pairwise(columns)
            if tile[0] <= left and right <= tile[2]
        ]
        for tile in tiles
    ]
