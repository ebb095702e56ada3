"""From logits to classes."""

import pytest
import torch
import torch.nn.functional as F

from spanets.segmentation import labels
from spanets.segmentation.labels import label_map


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
