"""Tiles, mirror images and scales: means of probabilities, each pixel by all that see it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spanets.segmentation.errors import describe_image, most_confused
from spanets.segmentation.metrics import class_ious
from spanets.segmentation.views import infer_views, label_tiled
from spanets_runtime.windows import Tiling

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
    found = infer_views(lambda x: x, images, WHOLE, scales)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 48, 64), rtol=0, atol=1e-5)
    tolerance = 1e-6 if scales == (1.0,) else 0.03
    torch.testing.assert_close(found.exp(), images.softmax(1), rtol=0, atol=tolerance)
    assert infer_views(lambda x: x, images, WHOLE, None) is images


def test_the_mean_is_of_probabilities():
    logits = torch.randn(1, 3, 40, 40)
    found = infer_views(lambda x: logits, torch.zeros(1, 3, 40, 40), WHOLE, (1.0,))
    expected = (logits.softmax(1) + logits.flip(-1).softmax(1)) / 2
    torch.testing.assert_close(found.exp(), expected, rtol=1e-5, atol=1e-6)


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
