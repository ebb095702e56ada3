"""Pictures of detections: what is drawn where."""

import numpy as np
import pytest
import torch
from PIL import Image

from spanets.detection.overlay import COLOURS, draw_objects

GRAY = Image.new("RGB", (80, 60), (100, 100, 100))


def found(**changes) -> dict[str, torch.Tensor]:
    masks = torch.zeros(2, 1, 60, 80)
    masks[0, 0, 20:30, 20:40] = 0.9
    masks[1, 0, 40:50, 50:60] = 0.9
    return {
        "boxes": torch.tensor([[20.0, 20, 40, 30], [50, 40, 60, 50]]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.9, 0.4]),
        "masks": masks,
        **changes,
    }


def colour(number: int) -> np.ndarray:
    return np.array([int(COLOURS[number][i : i + 2], 16) for i in (1, 3, 5)])


def test_objects_are_drawn_and_others_are_not():
    picture = np.asarray(draw_objects(GRAY, found(), ["cat", "dog"]), int)
    assert picture.shape == (60, 80, 3)
    # Half of the class's colour over the gray, within a rounding.
    assert np.abs(picture[25, 30] - (colour(1) + 100) / 2).max() <= 1
    assert (picture[20, 25] == colour(1)).all()  # the box's edge
    assert (picture[10:19, 22:60] == colour(1)).all(axis=2).any()  # its words, above
    assert (picture[35:] == 100).all()  # the second has too low a score
    both = np.asarray(draw_objects(GRAY, found(), ["cat", "dog"], min_score=0.3), int)
    assert np.abs(both[45, 55] - (colour(2) + 100) / 2).max() <= 1


def test_boxes_alone():
    boxes = found()
    del boxes["masks"]
    picture = np.asarray(draw_objects(GRAY, boxes, ["cat", "dog"]), int)
    assert (picture[25, 30] == 100).all()
    assert (picture[20, 25] == colour(1)).all()


def test_words_stay_in_the_picture():
    """At the upper border they are within the box."""
    high = found(boxes=torch.tensor([[20.0, 2, 70, 30], [50, 40, 60, 50]]))
    del high["masks"]
    picture = np.asarray(draw_objects(GRAY, high, ["cat", "dog"]), int)
    assert (picture[4:12, 22:60] == colour(1)).all(axis=2).sum() > 50


def test_nothing_found():
    nothing = {name: value[:0] for name, value in found().items()}
    picture = draw_objects(GRAY, nothing, ["cat", "dog"])
    assert np.array_equal(np.asarray(picture), np.asarray(GRAY))
    assert picture is not GRAY


@pytest.mark.parametrize("name", ["caf\udce9", "\ud800", "\u732b", "a\nb", "x" * 500, ""])
def test_any_name_is_written(name):
    picture = draw_objects(GRAY, found(), [name, name])
    assert picture.size == GRAY.size
    assert np.asarray(picture).std() > 0
