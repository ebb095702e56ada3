"""What numbers stand for: conventions, and what a recipe says."""

import numpy as np
import pytest

from spanets.recipe import parse_recipe
from spanets.recipe.values import load_yaml
from spanets.segmentation.masks.values import (
    IGNORED,
    given_values,
    named_classes,
    plain_values,
    suggest_values,
)
from spanets.segmentation.recipe import SegmentationRecipe
from spanets_runtime.errors import UsageError

CLASSES = ["ground", "road", "sky"]


def test_plain_numbers():
    classes, unknown = plain_values(3).to_classes(np.array([[0, 1, 2, 255, 3, 700]], np.uint16))
    assert classes[0, :4].tolist() == [0, 1, 2, IGNORED]
    assert unknown == [3, 700]
    classes, unknown = plain_values(3, first=1).to_classes(np.array([[0, 1, 3, 255]], np.uint16))
    assert classes.tolist() == [[IGNORED, 0, 2, IGNORED]]
    assert unknown == []


def test_many_classes_keep_255_apart():
    classes, unknown = plain_values(255).to_classes(np.array([[0, 254, 255]], np.uint16))
    assert classes.tolist() == [[0, 254, IGNORED]]
    assert unknown == []


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_binary_masks(top):
    values = given_values("binary", CLASSES[:2])
    classes, unknown = values.to_classes(np.array([[0, top]], np.uint16))
    assert classes.tolist() == [[0, 1]]
    assert unknown == []
    assert values.stored(2) == [0, 255]


def test_given_numbers():
    values = given_values({0: "ground", 38: "sky", 75: 1, 9: "ignore"}, CLASSES)
    classes, unknown = values.to_classes(np.array([[0, 38, 75, 9, 255, 1]], np.uint16))
    assert classes[0, :5].tolist() == [0, 2, 1, IGNORED, IGNORED]
    assert unknown == [1]
    assert values.stored(3) == [0, 75, 38]
    assert values.describe() == "0, 38, 75 (and 9, 255 for pixels to ignore)"


def test_255_may_be_a_class():
    classes, _ = given_values({0: 0, 7: 1, 255: 2}, CLASSES).to_classes(np.array([[255]], "u2"))
    assert classes.tolist() == [[2]]


def test_stored_numbers_are_read_back():
    given = {3: "sky", 4: "sky", 300: "ground", 7: "road"}
    values = given_values(given, CLASSES)
    stored = np.array([values.stored(3)], np.uint16)
    assert values.to_classes(stored)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("binary", "binary, for two classes, but there are 3"),
        ({0: "ground", 1: "raod", 2: "sky"}, "unknown class 'raod'; did you mean 'road'"),
        ({0: 0, 1: 3, 2: 2}, "3 is no class, the 3 classes are 0 to 2"),
        ({0: 0, 1: -1}, "-1 is no class"),
        ({0: 0, 2: "sky"}, r"gives no number for class 1 \(road\)"),
    ],
)
def test_what_does_not_fit_the_classes(given, message):
    with pytest.raises(UsageError, match=f"data.mask_values.*{message}"):
        given_values(given, CLASSES)


def test_names_that_a_recipe_tells():
    assert named_classes({0: "ground", 9: "ignore", 255: "road", 254: "road"}) == ["ground", "road"]
    assert named_classes("binary") == ["background", "foreground"]
    assert named_classes({0: 0, 1: "road"}) is None
    assert named_classes(None) is None


@pytest.mark.parametrize(
    ("numbers", "suggested"),
    [
        ([0, 128, 255], {0: "ground", 128: "road", 255: "sky"}),
        ([1, 2, 3], {1: "ground", 2: "road", 3: "sky"}),
        ([0, 38, 75, 255], {0: "ground", 38: "road", 75: "sky", 255: "ignore"}),
        ([0, 1, 2, 3], {0: "ignore", 1: "ground", 2: "road", 3: "sky"}),
    ],
)
def test_a_suggestion_can_be_used(numbers, suggested):
    words = ["--data.mask_values", suggest_values(numbers, CLASSES)]
    recipe = parse_recipe({"task": "segmentation"}, words)
    assert isinstance(recipe, SegmentationRecipe)
    assert recipe.data.mask_values == suggested
    assert given_values(suggested, CLASSES).is_given


def test_suggested_names_are_texts_in_yaml():
    names = ["no", "traffic light", "3", "a: b", 'a"b']
    text = suggest_values([5, 6, 7, 8, 9], names)
    assert list(load_yaml(text, "test").values()) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("binray", "must be binary or a map of whole numbers, such as .* or null"),
        ("{a: 0}", "must be binary or a map of whole numbers"),
        ("{0: 0.5}", "must be binary or a map of whole numbers"),
        ("{}", "data.mask_values is empty"),
        ("{70000: 0}", "has the number 70000, allowed: 0 to 65535"),
    ],
)
def test_recipes_that_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_recipe({"task": "segmentation"}, ["--data.mask_values", text])


def test_a_layout_with_numbers_of_its_own():
    values = {"task": "segmentation", "data": {"layout": "ade20k", "mask_values": "binary"}}
    with pytest.raises(UsageError, match=r"mask_values does not go with data\.layout ade20k"):
        parse_recipe(values)


def test_a_recipe_keeps_them():
    given = {"task": "segmentation", "data": {"mask_values": {0: "ground", 255: "road"}}}
    recipe = parse_recipe(given)
    assert parse_recipe(recipe.to_dict()) == recipe
