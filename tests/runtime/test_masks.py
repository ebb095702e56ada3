"""Pictures of masks: numbers to go on with, and colours to look at."""

import numpy as np
from PIL import Image

from spanets_runtime.masks import class_colours, mask_image, overlay


def test_colours_differ():
    assert len({tuple(colour) for colour in class_colours(150).tolist()}) == 150
    few = class_colours(8).astype(int)
    distances = np.abs(few[:, None] - few[None]).sum(-1) + 1000 * np.eye(8)
    assert distances.min() > 60


def test_masks_are_numbers_with_a_palette(tmp_path):
    numbers = np.array([[0, 1], [149, 2]], np.uint8)
    for first in (0, 1):
        mask_image(numbers, 150, first).save(tmp_path / "mask.png")
        saved = Image.open(tmp_path / "mask.png")
        assert saved.mode == "P"
        assert (np.asarray(saved) == numbers + first).all()
        colours = np.asarray(saved.convert("RGB"))
        assert (colours == class_colours(150)[numbers]).all()


def test_overlays_keep_the_image_visible():
    image = Image.new("RGB", (4, 3), (200, 200, 200))
    laid = np.asarray(overlay(image, np.ones((3, 4), np.uint8), 2))
    assert np.abs(laid[0, 0] - (200 + class_colours(2)[1].astype(float)) / 2).max() <= 1
