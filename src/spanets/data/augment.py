"""Random changes to images with boxes or masks, of torchvision's transforms, for training.

Images are uint8 tensors (3, H, W); what is drawn is drawn from torch's generator.
"""

from typing import Any

import torch
from torchvision.transforms import v2

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


class QuarterTurn(v2.Transform):
    """Turns by 0, 90, 180 or 270 degrees, each as likely, without a pixel lost."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, float]:
        """Draws the angle."""
        return {"angle": 90.0 * int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, float]) -> Any:
        """Turns an image, boxes or masks."""
        return v2.functional.rotate(inpt, **params, expand=True)
