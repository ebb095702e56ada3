"""Tiles, mirror images and corners: the same objects as in the whole image, each once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from spanets.detection.predict import ObjectPredictor
from spanets.detection.views import CUT, Augmented, find_tiled, mirror
from spanets.training.options import Views
from spanets_runtime.windows import Tiling, corners

CELL = 40  # of the grid in which objects lie, with a margin around each


def draw(seed: int, columns: int, rows: int) -> tuple[Image.Image, torch.Tensor]:
    """Returns an image of well separated rectangles, each of its own colour, and their boxes."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((rows * CELL, columns * CELL, 3), np.uint8)
    boxes, colour = [], 0
    for row in range(rows):
        for column in range(columns):
            if rng.random() < 0.3:
                continue
            colour += 1
            left, top = np.array([column, row]) * CELL + rng.integers(0, 12, 2)
            width, height = rng.integers(6, 26, 2)
            pixels[top : top + height, left : left + width] = (colour % 256, colour // 256, 255)
            boxes.append([left, top, left + width, top + height])
    return Image.fromarray(pixels), torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def perfect(image: Image.Image) -> dict[str, torch.Tensor]:
    """A detector that finds each colour; it is surer of what it sees more of."""
    pixels = np.asarray(image).astype(int)
    numbers = np.where(pixels[..., 2] == 255, pixels[..., 0] + 256 * pixels[..., 1], 0)
    boxes, scores = [], []
    for number in np.unique(numbers[numbers > 0]):
        y, x = np.nonzero(numbers == number)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
        scores.append(0.5 + len(x) / 2000)
    order = np.argsort(-np.array(scores), kind="stable")
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)[order],
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32)[order],
        "masks": torch.ones(len(boxes), 1, 4, 4),
    }


def in_order(boxes: torch.Tensor) -> list[list[float]]:
    return sorted(boxes.tolist())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    columns=st.integers(1, 9),
    rows=st.integers(1, 9),
    side=st.integers(64, 200),
    more=st.integers(0, 6),
)
def test_tiles_find_each_object_once(seed, columns, rows, side, more):
    """Objects have up to 25 pixels; the overlap is a little more."""
    image, boxes = draw(seed, columns, rows)
    found = find_tiled(perfect, image, Tiling(side, 26 + more))
    assert in_order(found["boxes"]) == in_order(boxes)
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)
    assert {len(value) for value in found.values()} == {len(boxes)}


def test_an_object_larger_than_the_overlap_is_marked():
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[20:40, 30:170] = (1, 0, 255)
    found = find_tiled(perfect, Image.fromarray(pixels), Tiling(100, 20))
    assert found[CUT].all() and len(found[CUT]) >= 2


def test_a_weak_object_does_not_replace_a_cut_one():
    """A box of a whole object that is hardly believed leaves the cut one there."""

    def find(image):
        left = image.getpixel((0, 0))[0]
        box = [[60.0, 0, 100, 40]] if left == 0 else [[0.0, 0, 60, 40]]
        scores = torch.tensor([0.9 if left == 0 else 0.1])
        return {"boxes": torch.tensor(box), "labels": torch.tensor([1]), "scores": scores}

    pixels = np.zeros((40, 150, 3), np.uint8)
    pixels[:, 50:] = 9
    found = find_tiled(find, Image.fromarray(pixels), Tiling(100, 50))
    assert found["scores"].tolist() == pytest.approx([0.9])
    assert found["boxes"].tolist() == [[60, 0, 100, 40]]


class Overlapping(nn.Module):
    """A detector of two objects whose boxes have an IoU of 0.6, alike in the mirror."""

    def forward(self, images=None, targets=None, sizes=None, paste=True):
        boxes = torch.tensor([[0.0, 0, 80, 20], [20, 0, 100, 20]])
        scores, labels = torch.tensor([0.9, 0.8]), torch.ones(2, dtype=torch.int64)
        return [{"boxes": boxes, "labels": labels, "scores": scores}]


@pytest.mark.parametrize(("iou", "count"), [(0.5, 1), (0.7, 2)])
def test_merging_keeps_what_the_detector_keeps(iou, count):
    image = torch.zeros(3, 20, 100)
    (found,) = Augmented(Overlapping(), Views(), nms_iou=iou)([image])
    assert len(found["boxes"]) == count
    empty = {name: value[:0] for name, value in Overlapping()()[0].items()}

    def find(tile):
        return Overlapping()()[0] if tile.getpixel((0, 0)) == (0, 0, 0) else empty

    pixels = np.zeros((20, 220, 3), np.uint8)
    pixels[:, 110:] = 9
    found = find_tiled(find, Image.fromarray(pixels), Tiling(110, 0), iou)
    assert len(found["boxes"]) == count


class Bright(nn.Module):
    """A detector of the box around bright pixels, whose scores lie in the first channel."""

    def forward(self, images, targets=None, sizes=None, paste=True):
        found = []
        for image, size in zip(images, sizes, strict=True):
            y, x = torch.nonzero(image[0] > 0.3, as_tuple=True)
            scale = torch.tensor([size[1] / image.shape[2], size[0] / image.shape[1]] * 2)
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]) * scale
            masks = torch.linspace(0, 1, 4).expand(1, 1, 4, 4)
            if x.float().mean() > image.shape[2] / 2:
                masks = masks.flip(-1)  # the mask of an object moves with it
            labels, scores = torch.ones(1, dtype=torch.int64), image[0].max()[None]
            found.append({"boxes": box[None], "labels": labels, "scores": scores, "masks": masks})
        return found


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0)])
def test_views_of_an_image_agree(scales):
    image = torch.zeros(3, 64, 96)
    image[:, 16:32, 8:40] = 0.75
    sizes = [(128, 192)]
    (plain,) = Bright()([image], sizes=sizes)
    (found,) = Augmented(Bright(), Views(scales))([image], sizes=sizes, paste=False)
    assert len(found["scores"]) == 1
    torch.testing.assert_close(found["boxes"], plain["boxes"], atol=4, rtol=0)  # a pixel, doubled
    if scales == (1.0,):
        assert all(torch.equal(found[name], plain[name]) for name in plain)


class Channels(nn.Module):
    """A detector of an object in each channel; it is surer of what looks larger."""

    def forward(self, images, targets=None, sizes=None, paste=True):
        (image,), (size,) = images, sizes
        scale = torch.tensor([size[1] / image.shape[2], size[0] / image.shape[1]] * 2)
        boxes, labels, scores = [], [], []
        for channel, pixels in enumerate(image):
            y, x = torch.nonzero(pixels > 0.5, as_tuple=True)
            if len(x):
                boxes.append(torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]) * scale)
                labels.append(channel + 1)
                scores.append(0.1 + 0.9 * len(x) / pixels.numel())
        return [
            {
                "boxes": torch.stack(boxes) if boxes else torch.zeros(0, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
                "scores": torch.tensor(scores),
                "masks": torch.rand(len(boxes), 1, 4, 4),
            }
        ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(32, 90),
    height=st.integers(32, 90),
    factor=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_corners_find_each_object_once(seed, width, height, factor):
    """Objects lie anywhere, most of them cut by some corner, where they may have higher scores."""
    rng = np.random.default_rng(seed)
    image, true = torch.zeros(3, height, width), []
    for pixels in image:
        across, down = int(rng.integers(4, width + 1)), int(rng.integers(4, height + 1))
        left, top = (
            int(rng.integers(0, width - across + 1)),
            int(rng.integers(0, height - down + 1)),
        )
        pixels[top : top + down, left : left + across] = 1
        true.append([left, top, left + across, top + down])
    size = round(height * factor), round(width * factor)
    (found,) = Augmented(Channels(), Views(corners=True))([image], sizes=[size], paste=False)
    assert sorted(found["labels"].tolist()) == [1, 2, 3]
    assert {len(value) for value in found.values()} == {3}
    boxes = found["boxes"][found["labels"].argsort()]
    expected = torch.tensor(true) * torch.tensor([size[1] / width, size[0] / height] * 2)
    torch.testing.assert_close(boxes, expected, atol=1.01 * factor, rtol=0.02)


def test_a_corner_as_large_as_the_image_changes_nothing(monkeypatch):
    monkeypatch.setattr("spanets.detection.views.CORNER", 1.0)
    image = torch.zeros(3, 64, 96)
    image[0, 16:32, 8:40] = image[1, 0:64, 50:96] = 1
    with_corners, without = (
        Augmented(Channels(), views)([image], sizes=[(100, 70)], paste=False)[0]
        for views in (Views(corners=True), Views())
    )
    for name in ("boxes", "labels", "scores"):
        torch.testing.assert_close(with_corners[name], without[name])


@given(width=st.integers(1, 99), height=st.integers(1, 99), share=st.floats(0.75, 1))
def test_corners_lie_in_the_image_and_cover_it(width, height, share):
    seen = np.zeros((height, width), int)
    for left, top, right, bottom in corners(width, height, share):
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        seen[top:bottom, left:right] += 1
    assert seen.min() > 0


def test_mirroring_twice_changes_nothing():
    found = {**perfect(draw(0, 3, 3)[0]), "masks": torch.rand(6, 1, 4, 4)}
    twice = mirror(mirror(found, 120), 120)
    assert all(torch.equal(found[name], twice[name]) for name in found)


def test_a_tile_as_large_as_the_image_changes_nothing():
    predictor = object.__new__(ObjectPredictor)
    predictor._find_whole, predictor.nms_iou = perfect, 0.5
    image, _ = draw(3, 4, 3)
    predictor.tiling = None
    whole = predictor.find(image)
    for side in (160, 500):
        predictor.tiling = Tiling(side, 20)
        tiled = predictor.find(image)
        assert all(torch.equal(whole[name], tiled[name]) for name in ("boxes", "labels", "scores"))
        assert not tiled[CUT].any()
