"""The decoders against what their papers say, written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spanets.segmentation import SemanticFPN, UPerNet
from spanets.segmentation.network.decoders import pool_to_grid

DIMS = (4, 6, 8, 10)


def maps_of(height: int, width: int, batch: int = 2) -> list[Tensor]:
    """Four maps, as of an image of this size."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, dim, -(-height // stride), -(-width // stride), generator=generator)
        for dim, stride in zip(DIMS, (4, 8, 16, 32), strict=True)
    ]


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("side", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(16, 64), (7, 11), (1, 3), (5, 6)])
def test_pooling_is_torchs(side, size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(pool_to_grid(x, side), F.adaptive_avg_pool2d(x, side))


def test_semantic_fpn_where_every_map_is_twice_the_next():
    """Level i is convolved and doubled i times, as mmsegmentation's head does it."""
    decoder = SemanticFPN(DIMS, pyramid_channels=12, channels=5).eval()
    maps = maps_of(64, 96)
    laterals = [
        F.conv2d(x, block[0].weight, block[0].bias)
        for x, block in zip(maps, decoder.pyramid.inner_blocks, strict=True)
    ]
    for i in (2, 1, 0):
        laterals[i] = laterals[i] + F.interpolate(laterals[i + 1], scale_factor=2, mode="nearest")
    total = torch.zeros(2, 5, 16, 24)
    for i, lateral in enumerate(laterals):
        conv = decoder.pyramid.layer_blocks[i][0]
        x = F.conv2d(lateral, conv.weight, conv.bias, padding=1)
        for layer in decoder.others[i - 1].convs if i else [decoder.first]:
            x = F.relu(layer[1](F.conv2d(x, layer[0].weight, padding=1)))
            x = double(x) if i else x
        total += x
    # float32 sums in another order
    torch.testing.assert_close(decoder(maps), total, rtol=1e-4, atol=1e-5)


def test_upernet_where_every_map_is_twice_the_next():
    decoder = UPerNet(DIMS, channels=5).eval()
    maps = maps_of(64, 96)
    pooled = [
        F.interpolate(conv(F.adaptive_avg_pool2d(maps[3], side)), (2, 3), mode="bilinear")
        for side, conv in zip((1, 2, 3, 6), decoder.pooled, strict=True)
    ]
    x = decoder.bottleneck(torch.cat([maps[3], *pooled], 1))
    levels = [x]
    for i in (2, 1, 0):
        x = decoder.laterals[i](maps[i]) + double(x)
        levels.insert(0, decoder.outputs[i](x))
    fused = [F.interpolate(level, (16, 24), mode="bilinear") for level in levels]
    torch.testing.assert_close(
        decoder(maps), decoder.fusion(torch.cat(fused, 1)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", [SemanticFPN, UPerNet])
def test_parts_have_the_papers_shapes(kind):
    """The two sums of docs/segmentation.md, of the papers' channels."""
    dims = (64, 128, 320, 512)
    with torch.device("meta"):
        count = sum(p.numel() for p in kind(dims).parameters())
    if kind is SemanticFPN:
        pyramid = sum(dims) * 256 + 4 * 256 + 4 * (9 * 256 * 256 + 256)
        levels = 4 * 9 * 256 * 128 + 3 * 9 * 128 * 128 + 7 * 2 * 128
        assert count == pyramid + levels
    else:
        pooling = 4 * (512 * 320 + 2 * 320) + 9 * (512 + 4 * 320) * 320 + 2 * 320
        pyramid = (64 + 128 + 320) * 320 + 3 * 2 * 320 + 3 * (9 * 320 * 320 + 2 * 320)
        assert count == pooling + pyramid + 9 * 4 * 320 * 320 + 2 * 320
