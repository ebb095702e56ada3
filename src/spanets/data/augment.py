"""Random changes to images with boxes or masks, of torchvision's transforms, for training.

Images are uint8 tensors (3, H, W); what is drawn is drawn from torch's generator.
"""

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from spanets.data.placement import Placement, turn_placement
from spanets.recipe.sections import DenseData


def placements(data: DenseData) -> list[v2.Transform]:
    """Returns the flip and the turn that a recipe asks for."""
    turns = [QuarterTurn()] if data.quarter_turns else []
    return [v2.RandomHorizontalFlip(data.hflip), *turns]


def recolouring(data: DenseData) -> list[v2.Transform]:
    """Returns the strong change of colours that a recipe asks for, if it asks for one."""
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
    """Returns SSD's random colours without the swapped channels of `RandomPhotometricDistort`."""
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
    """Returns the height and width of an image resized to a short side, each at least a pixel.

    Args:
        height: Of the image.
        width: Of the image.
        short: What the shorter side is to be.
        long: Most that the longer side may be; the short side is then less.
    """
    scale = short / min(height, width)
    if long is not None:
        scale = min(scale, long / max(height, width))
    return max(1, int(height * scale)), max(1, int(width * scale))


class ShortestSize(v2.RandomShortestSize):
    """Resizes to a short side that is drawn of several; also images of a few rows or columns."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the side, and returns the size."""
        height, width = v2.functional.get_size(flat_inputs[0])
        short = self.min_size[int(torch.randint(len(self.min_size), ()))]
        return {"size": fit_sides(height, width, short, self.max_size)}


class QuarterTurn(v2.Transform):
    """Turns by 0, 90, 180 or 270 degrees, each as likely, without a pixel lost."""

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
    """Returns boxes (N, 4), x1, y1, x2, y2, after so many quarter turns anticlockwise.

    torchvision turns them by sines and cosines, and fails where there are none.
    """
    values, (height, width) = boxes.as_subclass(torch.Tensor), boxes.canvas_size
    for _ in range(turns % 4):
        left, top, right, bottom = values.unbind(-1)
        values = torch.stack([top, width - right, bottom, width - left], -1)
        height, width = width, height
    return tv_tensors.wrap(values, like=boxes, canvas_size=(height, width))
