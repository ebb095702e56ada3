"""Classifies several views of an image and averages the probabilities: test-time augmentation."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.backbones.factory import has_fixed_size
from spanets.sources import Source
from spanets.training.options import Views
from spanets_runtime.errors import UsageError
from spanets_runtime.windows import corners

COMBINED = "probabilities averaged"
"""What is done with the results of several views."""

CORNER = 7 / 8
"""Side of a corner, as a fraction of the image's."""


class Averaged(nn.Module):
    """A classifier that averages its probabilities over views of an image.

    It returns their logarithms, which are logits of the averaged probabilities.
    """

    def __init__(self, model: nn.Module, views: Views) -> None:
        super().__init__()
        self.model, self.views = model, views

    def forward(self, images: Tensor) -> Tensor:
        """Returns logarithms of probabilities (B, classes), for images (B, 3, H, W)."""
        seen = list(find_views(images, self.views))
        total = torch.stack([self.model(view).float().log_softmax(-1) for view in seen])
        return total.logsumexp(0) - math.log(len(seen))


def find_views(images: Tensor, views: Views) -> Iterator[Tensor]:
    """Yields views of images (B, 3, H, W): scaled images, enlarged corners, and mirror images."""
    height, width = images.shape[2:]
    for scale in views.scales:
        yield from _mirrored(_resize(images, round(height * scale), round(width * scale)))
    if views.corners:
        for left, top, right, bottom in corners(width, height, CORNER):
            corner = images[..., top:bottom, left:right]
            yield from _mirrored(_resize(corner, height, width))


def _mirrored(images: Tensor) -> tuple[Tensor, Tensor]:
    return images, images.flip(-1)


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)


def average_views(source: Source, views: Views | None) -> nn.Module:
    """Returns the network of a classifier, averaged over views unless they are None.

    Raises:
        UsageError: the network takes images of one size, and a scale asks for others.
    """
    if views is None:
        return source.network
    if views.scales != (1.0,) and (source.exported or has_fixed_size(source.info.model)):
        raise UsageError(
            f"--tta-scales: {source.word} takes images of one size; leave it out"
            + (", or name the checkpoint" if source.exported else "")
        )
    return Averaged(source.network, views)
