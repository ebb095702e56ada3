"""Corruptions: what holds of all, and what each kind is known to do."""

import numpy as np
import pytest

from spanets.data.corruptions import KINDS, SEVERITIES, corrupt
from spanets_runtime.errors import UsageError


def scene(height: int = 64, width: int = 64) -> np.ndarray:
    """Coloured slopes, waves of several lengths and a sharp square: what photographs have."""
    rows, columns = np.mgrid[:height, :width]
    slopes = [0.3 + 0.4 * rows / height, 0.3 + 0.3 * columns / width, 0.6 - 0.3 * rows / height]
    waves = sum(0.05 * np.sin((rows + 2 * columns) / length) for length in (0.7, 1.3, 3, 9))
    image = np.stack(slopes, axis=-1) + waves[..., None]
    image[height // 5 : height // 2, width // 5 : width // 2] += 0.2
    return (255 * image.clip(0, 1)).astype(np.uint8)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    @pytest.mark.parametrize("size", [(64, 64), (33, 50), (8, 8), (1, 1)])
    def test_shape_and_type_stay(self, kind, size):
        image = scene(*size)
        before = image.copy()
        for severity in SEVERITIES:
            corrupted = corrupt(image, kind, severity)
            assert corrupted.shape == image.shape
            assert corrupted.dtype == np.uint8
        assert (image == before).all()  # its argument is no one else's to change

    def test_the_same_arguments_give_the_same_pixels(self, kind):
        np.random.seed(3)
        first = corrupt(scene(), kind, 3, seed=5)
        np.random.seed(4)  # no global state is read
        assert (corrupt(scene(), kind, 3, seed=5) == first).all()

    def test_severity_takes_images_further_away(self, kind):
        # Several sizes: pixels that are coarse may meet an image's own waves, or miss them.
        scenes = [scene(side, side) for side in (53, 64, 71, 90)]
        means = [
            np.mean([distance(corrupt(x, kind, severity, i), x) for i, x in enumerate(scenes)])
            for severity in SEVERITIES
        ]
        assert means[0] > 0.5  # of 255: something is seen at once
        assert (np.diff(means) > 0).all(), means

    @pytest.mark.parametrize("value", [0, 255])
    def test_black_and_white_images_are_no_trouble(self, kind, value):
        image = np.full((40, 40, 3), value, np.uint8)
        corrupted = corrupt(image, kind, 5)  # no division by nothing
        assert corrupted.shape == image.shape


RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow")
RANDOM += ("frost", "fog", "elastic_transform")


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_matter_where_something_is_drawn(kind):
    same = (corrupt(scene(), kind, 3, seed=0) == corrupt(scene(), kind, 3, seed=1)).all()
    assert same == (kind not in RANDOM)


def test_noise_has_its_published_strength():
    gray = np.full((200, 200, 3), 128, np.uint8)
    noise = corrupt(gray, "gaussian_noise", 2).astype(float) - 128
    # 120,000 draws: the deviation is known to 0.2 %, rounding to integers adds less.
    assert noise.std() / 255 == pytest.approx(0.12, rel=0.02)
    assert abs(noise.mean()) < 0.5
    shot = corrupt(gray, "shot_noise", 1) / 255
    # A Poisson count's variance is its mean; 60 photons are white, so few are clipped.
    assert shot.var() == pytest.approx(128 / 255 / 60, rel=0.05)
    impulses = corrupt(gray, "impulse_noise", 5)
    assert (impulses != 128).mean() == pytest.approx(0.27, abs=0.01)
    assert (impulses == 0).mean() == pytest.approx((impulses == 255).mean(), abs=0.01)


@pytest.mark.parametrize("kind", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"])
def test_blurs_leave_the_mean_and_take_high_frequencies(kind):
    image = scene()
    blurred = corrupt(image, kind, 3)
    assert blurred.mean() == pytest.approx(image.mean(), abs=4)  # the border is made up

    def roughness(pixels):
        return np.square(np.diff(pixels.astype(float), axis=1)).mean()

    assert roughness(blurred) < 0.5 * roughness(image)
    constant = np.full((40, 40, 3), 77, np.uint8)
    assert (corrupt(constant, kind, 5) == 77).all()  # kernels sum to one, borders too


def test_lengths_scale_with_the_image():
    """An edge of twice the size is blurred over twice as many pixels."""

    def width(side):
        image = np.zeros((side, side, 3), np.uint8)
        image[:, side // 2 :] = 255
        row = corrupt(image, "defocus_blur", 5)[side // 2, :, 0]
        return ((row > 12) & (row < 243)).sum()

    assert width(256) == pytest.approx(2 * width(128), rel=0.2)  # whole pixels


def test_values_of_simple_kinds():
    image = np.full((16, 16, 3), (100, 50, 0), np.uint8)
    brighter = corrupt(image, "brightness", 5)[0, 0]
    assert brighter == pytest.approx([227.5, 113.75, 0], abs=1)  # V + 0.5, hue and saturation stay
    halves = np.repeat([[50], [150]], 16, axis=0).repeat(16, 1)[..., None].repeat(3, 2)
    flat = corrupt(halves.astype(np.uint8), "contrast", 1)
    assert (flat[0, 0, 0], flat[-1, 0, 0]) == (80, 120)  # 100 ± 0.4 · 50
    coarse = corrupt(scene(), "pixelate", 5)
    assert (coarse[::4] == coarse[1::4]).all()  # a quarter of the pixels, four times as large


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [
        ("gausian_noise", 1, "unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'?"),
        ("fog", 0, "severity is 0, allowed: 1 to 5"),
        ("fog", 6, "severity is 6, allowed: 1 to 5"),
    ],
)
def test_unknown_kinds_and_severities(kind, severity, message):
    with pytest.raises(UsageError) as caught:
        corrupt(scene(), kind, severity)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_arrays(image):
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) of uint8"):
        corrupt(image, "fog", 1)
