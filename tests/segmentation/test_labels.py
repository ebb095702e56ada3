"""From logits to classes, and to pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from spanets.segmentation import labels
from spanets.segmentation.labels import class_colours, label_map, mask_image, overlay


@pytest.mark.parametrize("at_a_time", [1, 2, 100])
@pytest.mark.parametrize("size", [(33, 20), (7, 5), (3, 50)])
def test_classes_are_those_of_all_logits_resized(size, at_a_time, monkeypatch):
    monkeypatch.setattr(labels, "_RESIZED_VALUES", at_a_time * size[0] * size[1])
    logits = torch.randn(1, 5, 8, 6)
    resized = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    assert torch.equal(label_map(logits, *size), resized[0].argmax(0))


def test_the_first_of_equal_classes_wins(monkeypatch):
    monkeypatch.setattr(labels, "_RESIZED_VALUES", 1)
    assert not label_map(torch.zeros(1, 4, 2, 2), 3, 3).any()


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
