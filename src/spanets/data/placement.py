"""The affine map from an image file to the augmented image.

torchvision's transforms update it together with the image and its boxes, with the same random
draws. Polygons in the file's coordinates can then be rasterised at the training size, without a
mask of the file's size for each object.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import register_kernel


class Placement(tv_tensors.TVTensor):
    """An affine map from x and y in the file to x and y in the current image, in pixels.

    A float64 tensor (2, 3): two columns of factors for x and y, and an offset. Pixel edges have
    integer coordinates. Flips, resizes and crops keep the axes; a quarter turn swaps them.

    Attributes:
        canvas_size: Height and width of the current image.
    """

    canvas_size: tuple[int, int]

    @classmethod
    def of_file(cls, height: int, width: int) -> "Placement":
        """Returns the placement of an image before any transform."""
        return cls.make(torch.eye(2, 3, dtype=torch.float64), (height, width))

    @classmethod
    def make(cls, matrix: Tensor, canvas_size: tuple[int, int]) -> "Placement":
        """Returns a matrix (2, 3) as a placement on a canvas."""
        placement = matrix.as_subclass(cls)
        placement.canvas_size = canvas_size
        return placement

    def then(self, rows: list[list[float]], canvas_size: tuple[int, int]) -> "Placement":
        """Returns the placement after another affine map (2, 3), on a canvas of the given size."""
        matrix, step = self.as_subclass(Tensor), torch.tensor(rows, dtype=torch.float64)
        moved = step[:, :2] @ matrix
        moved[:, 2] += step[:, 2]
        return Placement.make(moved, canvas_size)


@register_kernel(F.horizontal_flip, Placement)
def _flip(placement: Placement) -> Placement:
    _, width = placement.canvas_size
    return placement.then([[-1, 0, width], [0, 1, 0]], placement.canvas_size)


@register_kernel(F.resize, Placement)
def _resize(placement: Placement, size: list[int], **_: Any) -> Placement:
    height, width = placement.canvas_size
    rows, columns = size
    return placement.then([[columns / width, 0, 0], [0, rows / height, 0]], (rows, columns))


@register_kernel(F.crop, Placement)
def _crop(placement: Placement, top: int, left: int, height: int, width: int) -> Placement:
    return placement.then([[1, 0, -left], [0, 1, -top]], (height, width))


def turn_placement(placement: Placement, turns: int) -> Placement:
    """Returns the placement after a number of quarter turns anticlockwise, like `torch.rot90`."""
    for _ in range(turns % 4):
        height, width = placement.canvas_size
        placement = placement.then([[0, 1, 0], [-1, 0, width]], (width, height))
    return placement
