"""Boxes that are not x, y, width and height in pixels, known from all of a file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets.formats.coco.faults import Fault
from spanets.formats.coco.plausible import Boxes
from spanets.formats.coco.reader import read_coco
from spanets_runtime.errors import UserError


def draw(rng: np.random.Generator, count: int) -> np.ndarray:
    """Rows of x, y, width, height and the image's width and height, in whole images."""
    image = rng.integers(40, 2000, (count, 2))
    size = rng.uniform(0.05, 0.6, (count, 2)) * image
    start = rng.uniform(0, 1, (count, 2)) * (image - size)
    return np.concatenate([start, size, image], 1)


def collect(rows: np.ndarray) -> Boxes:
    boxes = Boxes()
    for *box, width, height in rows.tolist():
        boxes.add(box, int(width), int(height))
    return boxes


def fault_of(rows: np.ndarray) -> str:
    with pytest.raises(Fault) as caught:
        collect(rows).check()
    return caught.value.problem


SETS = given(st.integers(0, 2**32 - 1), st.integers(20, 60))


@SETS
@settings(deadline=None, max_examples=30)
def test_what_is_right_is_read(seed, count):
    rng = np.random.default_rng(seed)
    for rows in (draw(rng, count), draw(rng, count).round(), draw(rng, 1), draw(rng, 2)):
        collect(rows).check()


@SETS
@settings(deadline=None, max_examples=30)
def test_shares_of_the_image(seed, count):
    rows = draw(np.random.default_rng(seed), count)
    shares = np.concatenate([rows[:, :4] / rows[:, [4, 5, 4, 5]], rows[:, 4:]], 1)
    said = fault_of(shares)
    assert f"all {count} lie within 0..1; multiply x and width by the image's width" in said
    centred = np.concatenate([shares[:, :2] + shares[:, 2:4] / 2, shares[:, 2:]], 1)
    assert "lie within 0..1" in fault_of(centred)  # as YOLO has them
    assert "lie within 0..1" in fault_of(shares[:1])
    shares[: count // 3] = rows[: count // 3]
    assert f"{count - count // 3} of {count} lie within 0..1" in fault_of(shares)


@SETS
@settings(deadline=None, max_examples=30)
def test_corners(seed, count):
    rows = draw(np.random.default_rng(seed), count)
    rows[:, 2:4] += rows[:, :2]
    assert f"of {count} leave their image as x, y, width and height; subtract" in fault_of(rows)


@SETS
@settings(deadline=None, max_examples=30)
def test_images_of_another_size(seed, count):
    """The photographs were made smaller, to a third."""
    rows = draw(np.random.default_rng(seed), count)
    rows[:, 4:] = np.ceil(rows[:, 4:] / 3)
    assert "for images of another size: " in fault_of(rows)


def test_what_may_be_wrong_is_told():
    rng = np.random.default_rng(0)
    rows = draw(rng, 30)
    assert collect(rows).notes() == []
    rows[:4, :4] /= rows[:4, [4, 5, 4, 5]]
    boxes = collect(rows)
    boxes.check()
    assert boxes.notes() == ["4 of 30 boxes lie within 0..1, less than a pixel"]
    smaller = draw(rng, 30)
    smaller[:, 4:] *= 3  # the photographs are larger
    (line,) = collect(smaller).notes()
    assert line.startswith("all 30 boxes lie in the upper left quarter of their images; are they")


def test_an_object_may_be_one_pixel():
    one = np.array([[0.0, 0, 1, 1, 64, 64]])
    collect(one).check()
    collect(np.repeat([[0.0, 0, 1, 1, 1, 1]], 9, 0)).check()  # images of one pixel
    Boxes().check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, w, h: [x / 128, y / 96, w / 128, h / 96], "boxes that are shares of"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "boxes that are x1, y1, x2, y2"),
        (lambda x, y, w, h: [4 * x, 4 * y, 4 * w, 4 * h], "boxes for images of another size"),
        (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], "that are not around their polygons"),
        (lambda x, y, w, h: [x / 8, y / 8, w / 8, h / 8], "that are not around their polygons"),
    ],
)
@pytest.mark.parametrize("faulty", ["boxes", "both"])
def test_a_file_is_refused(tmp_path, change, message, faulty):
    rng, annotations = np.random.default_rng(3), []
    for number in range(1, 25):
        size = rng.uniform(10, 40, 2)
        x, y, w, h = *(rng.uniform(0, 1, 2) * ([128, 96] - size)).tolist(), *size.tolist()
        polygon = [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]
        if faulty == "both" and "polygons" not in message:
            factors = np.array(change(1.0, 1.0, 1.0, 1.0)[2:]) if "x1" not in message else 1
            polygon = (np.array(polygon) * factors).tolist()
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "bbox": change(x, y, w, h),
                "segmentation": [[value for point in polygon for value in point]],
            }
        )
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 128, "height": 96}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": annotations,
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        read_coco(path, tmp_path)
    assert "a.json: " in str(caught.value)
