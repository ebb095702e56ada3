"""Training augmentation of images with boxes or masks, built from torchvision's transforms.

Images are uint8 tensors (3, H, W). All randomness comes from torch's global generator.
"""

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from spanets.data.placement import Placement, turn_placement
from spanets.recipe.sections import DenseData


def placements(data: DenseData) -> list[v2.Transform]:
    """Returns the recipe's geometric transforms: the horizontal flip and the quarter turns."""
    turns = [QuarterTurn()] if data.quarter_turns else []
    return [v2.RandomHorizontalFlip(data.hflip), *turns]


def recolouring(data: DenseData) -> list[v2.Transform]:
    """Returns the recipe's strong colour augmentation, or an empty list."""
    if not data.recolour:
        return []
    changes = [
        v2.RandomChannelPermutation(),
        v2.RandomInvert(0.3),
        v2.RandomGrayscale(0.2),
        v2.ColorJitter(brightness=0.4, contrast=0.5, saturation=0.5, hue=0.1),
    ]
    return [v2.RandomApply(changes, data.recolour)]


def distortions() -> list[v2.Transform]:
    """Returns SSD's colour augmentation: `RandomPhotometricDistort` without swapped channels."""
    brightness, contrast, saturation, hue = (
        v2.RandomApply([v2.ColorJitter(**{name: limits})])
        for name, limits in (
            ("brightness", (0.875, 1.125)),
            ("contrast", (0.5, 1.5)),
            ("saturation", (0.5, 1.5)),
            ("hue", (-0.05, 0.05)),
        )
    )
    first = v2.Compose([contrast, saturation, hue])
    last = v2.Compose([saturation, hue, contrast])
    return [brightness, v2.RandomChoice([first, last])]


def fit_sides(height: int, width: int, short: int, long: int | None) -> tuple[int, int]:
    """Returns the height and width of an image resized to a short side, each at least one pixel.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        short: Wanted length of the shorter side.
        long: Largest length of the longer side, which takes precedence over `short`; or None.
    """
    scale = short / min(height, width)
    if long is not None:
        scale = min(scale, long / max(height, width))
    return max(1, int(height * scale)), max(1, int(width * scale))


class ShortestSize(v2.RandomShortestSize):
    """Resizes to a random one of several short sides; works for images of a few rows or columns."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the short side and returns the new size."""
        height, width = v2.functional.get_size(flat_inputs[0])
        short = self.min_size[int(torch.randint(len(self.min_size), ()))]
        return {"size": fit_sides(height, width, short, self.max_size)}


class QuarterTurn(v2.Transform):
    """Turns by 0, 90, 180 or 270 degrees with equal probability, without losing a pixel."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        """Draws the number of quarter turns, anticlockwise."""
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        """Turns an image, boxes, masks or a placement."""
        turns = params["turns"]
        if isinstance(inpt, Placement):
            return turn_placement(inpt, turns)
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return turn_boxes(inpt, turns)
        return v2.functional.rotate(inpt, angle=90.0 * turns, expand=True)


def turn_boxes(boxes: tv_tensors.BoundingBoxes, turns: int) -> tv_tensors.BoundingBoxes:
    """Returns boxes (N, 4), x1, y1, x2, y2, after a number of quarter turns anticlockwise.

    torchvision's rotation uses sines and cosines, and fails on zero boxes.
    """
    values, (height, width) = boxes.as_subclass(torch.Tensor), boxes.canvas_size
    for _ in range(turns % 4):
        left, top, right, bottom = values.unbind(-1)
        values = torch.stack([top, width - right, bottom, width - left], -1)
        height, width = width, height
    return tv_tensors.wrap(values, like=boxes, canvas_size=(height, width))
