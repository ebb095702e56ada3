"""Masks made at the size of training: where the transformed image has the object."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from spanets.data.augment import QuarterTurn, ShortestSize
from spanets.data.placement import Placement
from spanets.detection.data import RandomSizeCrop
from spanets.formats.coco.bits import count_pixels, pack_masks, unpack_masks
from spanets.formats.coco.filling import fill, move
from spanets.formats.coco.rle import encode_runs

SAME = np.eye(2, 3)
SIDES = st.integers(24, 90)


def outline(rng: np.random.Generator, height: int, width: int) -> list[float]:
    """A star of eight points, parts of which may lie outside of the image."""
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    radius = rng.uniform(8, max(height, width) / 2) * rng.uniform(0.6, 1, 8)
    angles = np.arange(8) / 8 * 2 * np.pi
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
    return points.ravel().tolist()


def transform(kind: str, rng: np.random.Generator) -> v2.Compose:
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(), QuarterTurn()]
    if kind != "placed":
        steps.append(ShortestSize([int(rng.integers(12, 120))], int(rng.integers(120, 200))))
    if kind == "cut":
        steps += [RandomSizeCrop(16, 60), ShortestSize([int(rng.integers(16, 90))], 200)]
    return v2.Compose(steps)


def certain(pixels: np.ndarray, value: int, reach: int) -> np.ndarray:
    """Where a pixel and all around it have a value."""
    same = np.pad(pixels == value, reach, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(same, (2 * reach + 1,) * 2)
    return windows.all((2, 3))


def near(polygon: list[float], size: tuple[int, int], reach: int) -> np.ndarray:
    """Which pixels (H, W) have their centre at most `reach` from a polygon's edges.

    Beyond the border no pixel says where an edge lies, so that `certain` misses those beside it.
    """
    starts = np.array(polygon).reshape(-1, 1, 1, 2)
    edges = np.roll(starts, -1, axis=0) - starts
    centres = np.stack(np.meshgrid(*(np.arange(side) + 0.5 for side in size[::-1])), -1)
    length = (edges**2).sum(-1).clip(1e-9)
    along = (((centres - starts) * edges).sum(-1) / length).clip(0, 1)[..., None]
    distance = np.linalg.norm(starts + along * edges - centres, axis=-1)  # (edges, H, W)
    return distance.min(0) <= reach


@pytest.mark.parametrize("form", ["polygons", "runs"])
@pytest.mark.parametrize("kind", ["placed", "resized", "cut"])
@settings(max_examples=25, deadline=None)
@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_masks_lie_where_the_image_has_the_object(form, kind, height, width, seed):
    """The image is the object itself, so that torchvision says where it goes."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shape, size = [outline(rng, height, width)], (height, width)
    full = fill(shape, size, SAME, size)
    image = tv_tensors.Image(torch.from_numpy(full * np.uint8(255)).expand(3, -1, -1).clone())
    given_shape = shape if form == "polygons" else {"counts": encode_runs(full)}
    pixels, placement = transform(kind, rng)(image, Placement.of_file(*size))
    matrix = placement.as_subclass(torch.Tensor).numpy()
    mask = fill(given_shape, size, matrix, placement.canvas_size)
    pixels = pixels[0].numpy()
    assert mask.shape == pixels.shape
    # Outlines are drawn to a pixel, of the file or of the mask, whichever is larger.
    reach = max(1, math.ceil(np.abs(matrix[:, :2]).max()))
    far = ~near(move(shape[0], matrix), mask.shape, reach)
    assert mask[certain(pixels, 255, reach) & far].all()
    assert not mask[certain(pixels, 0, reach) & far].any()
    if (form, kind) == ("runs", "placed"):
        assert np.array_equal(mask * 255, pixels)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 4), st.integers(0, 99))
@settings(deadline=None)
def test_bits_there_and_back(height, width, count, seed):
    masks = np.random.default_rng(seed).integers(0, 2, (count, height, width), dtype=np.uint8)
    bits = pack_masks(iter(masks), count, height, width)
    assert bits.shape == (count, height, (width + 7) // 8)
    assert np.array_equal(unpack_masks(bits, width).numpy(), masks)
    assert count_pixels(bits).tolist() == masks.sum((1, 2)).tolist()
