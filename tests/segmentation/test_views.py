"""Tiles, mirror images, scales, corners: means of probabilities, each pixel by all that see it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spanets.segmentation.errors import describe_image, most_confused
from spanets.segmentation.metrics import class_ious
from spanets.segmentation.views import CORNER, infer_views, label_tiled
from spanets.training.options import Views
from spanets_runtime.windows import Tiling, corners

WHOLE = {"test": "whole"}


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def by_pixel(image: Image.Image) -> torch.Tensor:
    """Logits of three classes that look at one pixel."""
    return torch.from_numpy(np.asarray(image) / 64.0).permute(2, 0, 1)[None]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    side=st.integers(4, 60),
    share=st.floats(0, 0.5),
)
def test_tiles_of_a_model_that_looks_at_one_pixel(seed, width, height, side, share):
    image = picture(seed, width, height)
    labels = label_tiled(by_pixel, image, Tiling(side, int(side * share)))
    assert np.array_equal(labels, np.asarray(image).argmax(2))


def test_probabilities_are_averaged_where_tiles_overlap():
    """Two tiles of 60 on a row of 100: 40 to 60 are in both. The first is surer."""
    answers = iter([[3.0, 0.0], [0.0, 2.0]])

    def infer(image):
        return torch.tensor(next(answers)).reshape(1, 2, 1, 1).expand(1, 2, image.height, 60)

    labels = label_tiled(infer, picture(0, 100, 8), Tiling(60, 20))
    assert (labels[:, :60] == 0).all() and (labels[:, 60:] == 1).all()


def test_logits_are_resized_to_the_tile():
    labels = label_tiled(
        lambda image: by_pixel(image.resize((7, 9))), picture(1, 50, 40), Tiling(32, 8)
    )
    assert labels.shape == (40, 50)


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0)])
def test_views_of_a_smooth_image_agree(scales):
    """A model that looks at one pixel sees the same in all views, but for resampling."""
    ramp = torch.linspace(-2, 2, 64)
    images = torch.stack([ramp.expand(48, 64), -ramp.expand(48, 64), 0 * ramp.expand(48, 64)])[None]
    found = infer_views(lambda x: x, images, WHOLE, Views(scales))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 48, 64), rtol=0, atol=1e-5)
    tolerance = 1e-6 if scales == (1.0,) else 0.03
    torch.testing.assert_close(found.exp(), images.softmax(1), rtol=0, atol=tolerance)
    assert infer_views(lambda x: x, images, WHOLE, None) is images


def test_the_mean_is_of_probabilities():
    logits = torch.randn(1, 3, 40, 40)
    found = infer_views(lambda x: logits, torch.zeros(1, 3, 40, 40), WHOLE, Views())
    expected = (logits.softmax(1) + logits.flip(-1).softmax(1)) / 2
    torch.testing.assert_close(found.exp(), expected, rtol=1e-5, atol=1e-6)


def test_a_corner_counts_for_its_own_pixels():
    """Each call answers another probability; a pixel has the mean over the views that hold it."""
    shares = torch.linspace(0.1, 0.9, 10)
    calls = iter(shares)

    def answer(images):
        share = next(calls)
        logits = torch.stack([share, 1 - share]).log()
        return logits.reshape(1, 2, 1, 1).expand(1, 2, *images.shape[2:])

    found = infer_views(answer, torch.zeros(1, 3, 40, 60), WHOLE, Views(corners=True)).exp()
    sums, counts = shares[:2].sum().repeat(40, 60), torch.full((40, 60), 2)
    for number, (left, top, right, bottom) in enumerate(corners(60, 40, CORNER)):
        sums[top:bottom, left:right] += shares[2 + 2 * number : 4 + 2 * number].sum()
        counts[top:bottom, left:right] += 2
    assert counts.unique().tolist() == [4, 6, 10]
    torch.testing.assert_close(found[0, 0], sums / counts, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 40, 60), rtol=0, atol=1e-6)


def test_a_corner_as_large_as_the_image_changes_nothing(monkeypatch):
    monkeypatch.setattr("spanets.segmentation.views.CORNER", 1.0)
    images = torch.randn(2, 3, 33, 47)
    with_corners, without = (
        infer_views(lambda x: 3 * x, images, WHOLE, views)
        for views in (Views(corners=True), Views())
    )
    torch.testing.assert_close(with_corners, without, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 2.0)])
def test_corners_change_nothing_away_from_borders(scales):
    """Bilinear resizing is exact on a ramp, and so is a network that shifts with its input."""
    ramps = [torch.linspace(-2, 2, 64).expand(48, 64), torch.linspace(1, -1, 48)[:, None]]
    images = torch.stack([ramp.expand(48, 64) for ramp in (*ramps, ramps[0] / 3)])[None]

    def blur(images):
        return F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)

    views = Views(scales, corners=True)
    found, plain = infer_views(blur, images, WHOLE, views), blur(images).log_softmax(1)
    rows, columns = torch.ones(48, dtype=torch.bool), torch.ones(64, dtype=torch.bool)
    for box in corners(64, 48, CORNER):
        for borders, inner in (((box[0], box[2]), columns), ((box[1], box[3]), rows)):
            for border in borders:
                inner[max(0, border - 4) : border + 4] = False
    inside = rows[:, None] & columns
    assert inside.sum() > 800
    torch.testing.assert_close(found[..., inside], plain[..., inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.exp(), plain.exp(), rtol=0, atol=0.03)


def test_numbers_of_an_image():
    truth = torch.tensor([[0, 0, 1, 255], [2, 2, 1, 255]])
    labels = torch.tensor([[0, 1, 1, 0], [2, 2, 0, 2]])
    *ious, right, counted, ignored = describe_image(labels, truth, 4).tolist()
    assert ious[:3] == pytest.approx([1 / 3, 1 / 3, 1])
    assert np.isnan(ious[3])
    assert (right, counted, ignored) == (4, 6, 2)
    confusion = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 2]])
    assert ious[:3] == pytest.approx(class_ious(confusion).tolist())
    assert most_confused(confusion.numpy()) == [(0, 1, 1, 0.5), (1, 0, 1, 0.5)]
