"""Preprocessing without torch is timm's evaluation transform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from spanets_runtime.errors import UserError
from spanets_runtime.preprocessing import Preprocessing

VALUES = {
    "input_size": [3, 32, 32],
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.integers(1, 48),
    crop_pct=st.sampled_from([1.0, 0.95, 0.875, 0.5]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_equal_to_timms(width, height, size, crop_pct, interpolation):
    values = {**VALUES, "input_size": [3, size, size], "crop_pct": crop_pct}
    values["interpolation"] = interpolation
    pixels = np.random.default_rng(width * 97 + height).integers(0, 256, (height, width, 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    ours = Preprocessing.parse(values, "a.onnx")(image)
    theirs = create_transform(**values)(image).numpy()
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_size": [3, 32, 48]}, "images of 32x48, must be square, up to 8192"),
        ({"input_size": [3, 10**6, 10**6]}, "must be square, up to 8192"),
        ({"input_size": "large"}, "the preprocessing is damaged"),
        ({"crop_pct": 1e-9}, "crop_pct is 1e-09, must be from 0.01 to 1"),
        ({"crop_pct": float("nan")}, "crop_pct is nan, must be from 0.01 to 1"),
        ({"crop_mode": "squash"}, "crop_mode is 'squash', only 'center' is known"),
        ({"interpolation": "magic"}, "interpolation is 'magic', allowed: nearest, bilinear"),
        ({"mean": [0.5]}, "mean and std need three numbers"),
        ({"std": [1, 1, 0]}, "std none that is 0"),
        ({"std": None}, "the preprocessing is damaged"),
    ],
)
def test_damaged_values(changes, said):
    with pytest.raises(UserError, match=r"^a\.onnx: the preprocessing is damaged") as caught:
        Preprocessing.parse({**VALUES, **changes}, "a.onnx")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", list(VALUES))
def test_missing_values(name):
    values = {key: value for key, value in VALUES.items() if key != name}
    with pytest.raises(UserError, match=f"no '{name}'"):
        Preprocessing.parse(values, "a.onnx")
