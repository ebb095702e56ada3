"""Keypoints in files of COCO's format: what is read, and what is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from spanets.formats.coco.keypoints import Keypoints, count_labelled
from spanets.formats.coco.objects import CocoData, match_keypoints, to_coco
from spanets.formats.coco.reader import read_coco
from spanets_runtime.errors import UserError

PERSON = {"keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2], [1, 3]]}
POINTS = [5, 6.5, 2, 7, 8, 1, 0, 0, 0]


def content() -> dict[str, Any]:
    """A person with keypoints, one without, and a chair."""
    annotation = {"image_id": 1, "bbox": [2, 2, 10, 8], "area": 40}
    return {
        "images": [{"id": 1, "width": 40, "height": 30, "file_name": "1.png"}],
        "categories": [{"id": 1, "name": "person", **PERSON}, {"id": 2, "name": "chair"}],
        "annotations": [
            {"id": 1, "category_id": 1, "keypoints": POINTS, "num_keypoints": 2, **annotation},
            {"id": 2, "category_id": 1, "keypoints": [0] * 9, **annotation},
            {"id": 3, "category_id": 2, **annotation},
        ],
    }


@pytest.fixture
def read(tmp_path) -> Callable[..., CocoData]:
    def read(value: Any, keypoints: bool = True) -> CocoData:
        (tmp_path / "a.json").write_text(json.dumps(value))
        return read_coco(tmp_path / "a.json", tmp_path, keypoints)

    return read


def test_what_is_read(read):
    data = read(content())
    assert data.keypoints == Keypoints(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2)))
    first, second, third = data.images[0].annotations
    assert first.keypoints == tuple(POINTS)
    assert [count_labelled(a.keypoints) for a in (first, second, third)] == [2, 0, 0]
    assert third.keypoints is None
    assert data.keypoints.to_category() == PERSON
    assert Keypoints.parse(data.keypoints.describe()) == data.keypoints
    again = to_coco(data)
    assert [a["num_keypoints"] for a in again["annotations"]] == [2, 0, 0]
    assert again["annotations"][0]["keypoints"] == POINTS


def test_without_names_the_number_is_that_of_the_annotations(read):
    value = content()
    value["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "chair"}]
    assert read(value).keypoints == Keypoints.unnamed(3)
    assert read(content(), keypoints=False).keypoints is None


WRONG = [
    (POINTS[:8], "annotations[0] has 8 numbers as keypoints, must be x, y and v each"),
    (POINTS[:6], "annotations[0] has 2 keypoints, where the file has 3"),
    ([*POINTS[:8], 3], "annotations[0] has a keypoint of visibility 3, must be 0, 1 or 2"),
    ([*POINTS[:8], "2"], "annotations[0] has the keypoints [5, 6.5, 2, 7, 8, 1, 0, 0, ...], must"),
    ("5 6 2", "annotations[0] has the keypoints '5 6 2', must be numbers"),
]


@pytest.mark.parametrize(("points", "line"), WRONG)
def test_wrong_annotations_are_named(read, points, line):
    value = content()
    value["annotations"][0]["keypoints"] = points
    with pytest.raises(UserError) as caught:
        read(value)
    assert f"a.json: {line}" in str(caught.value) and "\n" not in str(caught.value)
    assert read(value, keypoints=False).images  # other detectors have no need of them


def test_numbers_of_keypoints_that_differ(read):
    value = content()
    value["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "chair"}]
    value["annotations"][1]["keypoints"] = [0] * 12
    with pytest.raises(UserError, match=r"annotations\[1\] has 4 keypoints, where the file has 3"):
        read(value)


CATEGORIES = [
    ({"keypoints": ["nose", "left_eye"]}, "categories[1] has other keypoints than [0]"),
    ({**PERSON, "skeleton": [[1, 4]]}, "categories[1] has the skeleton [[1, 4]], must be pairs"),
    ({**PERSON, "skeleton": [[0, 1]]}, "categories[1] has the skeleton [[0, 1]], must be pairs"),
    ({"keypoints": "nose"}, "categories[1] has the keypoints 'nose', must be a list of names"),
]


@pytest.mark.parametrize(("category", "line"), CATEGORIES)
def test_wrong_categories_are_named(read, category, line):
    value = content()
    value["categories"][1] |= category
    with pytest.raises(UserError) as caught:
        read(value)
    assert line in str(caught.value)


def test_a_model_measures_its_own_keypoints(read):
    data = read(content())
    own = data.keypoints
    assert match_keypoints(data, own).keypoints is own
    assert match_keypoints(data, Keypoints.unnamed(3)).keypoints == Keypoints.unnamed(3)
    for other in (Keypoints.unnamed(4), Keypoints(("left_eye", "nose", "right_eye"))):
        with pytest.raises(UserError, match=r"has the keypoints nose, left_eye.*; the model's are"):
            match_keypoints(data, other)
