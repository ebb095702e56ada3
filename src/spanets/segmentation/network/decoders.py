"""Decoders from the four maps of a backbone to one feature map at stride 4.

All tensors are NCHW, and the finest map comes first. Sizes of maps need not differ by a factor of
exactly 2: resizing goes to the size of an existing map, so images of any size stay aligned.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork


class SemanticFPN(nn.Module):
    """Semantic FPN: a feature pyramid whose levels are convolved up to stride 4 and summed.

    Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, section 3.1 and figure 3, with
    batch norm, as in the papers' experiments.

    Args:
        in_channels: Channels of the input maps.
        pyramid_channels: Channels of the feature pyramid.
        channels: Channels of the output.
    """

    def __init__(
        self, in_channels: Sequence[int], pyramid_channels: int = 256, channels: int = 128
    ) -> None:
        super().__init__()
        self.channels = channels
        self.pyramid = FeaturePyramidNetwork(list(in_channels), pyramid_channels)
        self.first = conv_norm(pyramid_channels, channels, 3)
        self.others = nn.ModuleList(
            _Climb(pyramid_channels, channels, steps=i) for i in range(1, len(in_channels))
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns features (B, channels, H, W) of the size of the first map."""
        named = OrderedDict((str(i), x) for i, x in enumerate(maps))
        pyramid = list(self.pyramid(named).values())
        total = self.first(pyramid[0])
        for i, climb in enumerate(self.others, start=1):
            total = total + climb(pyramid[i], pyramid[:i])
        return total


class _Climb(nn.Module):
    """Upsamples a pyramid level to stride 4, with a convolution before each doubling."""

    def __init__(self, in_channels: int, channels: int, steps: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            conv_norm(channels if i else in_channels, channels, 3) for i in range(steps)
        )

    def forward(self, x: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, h, w) to the size of the first of the finer levels."""
        for conv, level in zip(self.convs, reversed(finer), strict=True):
            x = resize_like(conv(x), level)
        return x


class UPerNet(nn.Module):
    """UPerNet: pyramid pooling of the coarsest map, a feature pyramid, and all levels fused.

    Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018, section 3.2.

    Args:
        in_channels: Channels of the input maps.
        channels: Channels of every level and of the output.
        pools: Sides of the grids that pool the coarsest map.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 320, pools: Sequence[int] = (1, 2, 3, 6)
    ) -> None:
        super().__init__()
        self.channels = channels
        self.pools = tuple(pools)
        *finer, coarsest = in_channels
        self.pooled = nn.ModuleList(conv_norm(coarsest, channels, 1) for _ in pools)
        self.bottleneck = conv_norm(coarsest + len(self.pools) * channels, channels, 3)
        self.laterals = nn.ModuleList(conv_norm(dim, channels, 1) for dim in finer)
        self.outputs = nn.ModuleList(conv_norm(channels, channels, 3) for _ in finer)
        self.fusion = conv_norm(len(in_channels) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns features (B, channels, H, W) of the size of the first map."""
        *finer, coarsest = maps
        x = self._pool(coarsest)
        levels = [x]
        for i in reversed(range(len(finer))):
            x = self.laterals[i](finer[i]) + resize_like(x, finer[i])
            levels.append(self.outputs[i](x))
        fused = [resize_like(level, maps[0]) for level in reversed(levels)]
        return self.fusion(torch.cat(fused, 1))

    def _pool(self, x: Tensor) -> Tensor:
        parts = [
            resize_like(conv(pool_to_grid(x, side)), x)
            for side, conv in zip(self.pools, self.pooled, strict=True)
        ]
        return self.bottleneck(torch.cat([x, *parts], 1))


class FCNHead(nn.Sequential):
    """The auxiliary head: a convolution, dropout and a pixel classifier.

    Args:
        in_channels: Channels of the input map.
        channels: Hidden channels.
        classes: Number of classes.
        dropout: Probability of dropping a channel.
    """

    def __init__(self, in_channels: int, channels: int, classes: int, dropout: float) -> None:
        super().__init__(
            conv_norm(in_channels, channels, 3),
            nn.Dropout2d(dropout),
            pixel_classifier(channels, classes),
        )


def conv_norm(in_channels: int, channels: int, kernel_size: int) -> nn.Module:
    """Makes a convolution without bias, batch norm and ReLU.

    Raises:
        ValueError: no channels.
    """
    if channels < 1:
        raise ValueError(f"{channels} channels, must be one or more")
    layer = Conv2dNormActivation(in_channels, channels, kernel_size)
    nn.init.kaiming_normal_(layer[0].weight, mode="fan_out", nonlinearity="relu")
    return layer


def pixel_classifier(channels: int, classes: int) -> nn.Conv2d:
    """Makes the 1×1 convolution from features to logits."""
    layer = nn.Conv2d(channels, classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """Resizes (B, C, H, W) bilinearly to the height and width of another map."""
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def pool_to_grid(x: Tensor, side: int) -> Tensor:
    """Averages (B, C, H, W) over a grid of side × side cells.

    The result equals `F.adaptive_avg_pool2d(x, side)`. Two matrix products can be exported with
    dynamic sizes; einsum, because `@` depends on the memory layout, which would fix a size.
    """
    rows = _cell_means(x.shape[2], side, x)  # (side, H)
    columns = _cell_means(x.shape[3], side, x)  # (side, W)
    return torch.einsum("ih,bchw,jw->bcij", rows, x, columns)


def _cell_means(length: int, cells: int, like: Tensor) -> Tensor:
    """Returns the matrix (cells, length) that averages a row over cells, which may overlap."""
    cell = torch.arange(cells, device=like.device)[:, None]
    pixel = torch.arange(length, device=like.device)[None]
    first = cell * length // cells
    end = ((cell + 1) * length + cells - 1) // cells
    inside = ((pixel >= first) & (pixel < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)
