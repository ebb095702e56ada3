"""The spellings of parts, and words that only look like them."""

import pytest

from spanets.data.sources.parts import name_parts, part_in, part_of
from spanets_runtime.errors import UserError


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", "train Train TRAIN training Training train_set trainset train-set train_images"),
        ("val", "val VAL valid Validation validation_set val-split dev Eval evaluation_data"),
        ("test", "test Test testing TEST_SET testset test_data test.images"),
        (None, "trainer trains cat contest testament value invalid devil evals train2017x val_x"),
    ],
)
def test_spellings(part, names):
    assert {part_of(name) for name in names.split()} == {part}


def test_names_with_spaces():
    assert part_of("Training Set") == "train"
    assert part_of("train ") is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-0000.tar", "train"),
        ("photos_Validation_0.tar", "val"),
        ("imagenet1k-TEST-{0..3}.tar", "test"),
        ("train_set0001.tar", "train"),
        ("testing.tar", "test"),
        ("trainer-0.tar", None),
        ("contest-0.tar", None),
        ("0001.tar", None),
        ("val-of-train.tar", "val"),
    ],
)
def test_names_of_shards(name, part):
    assert part_in(name) == part


def test_one_folder_a_part():
    found = name_parts(["Test", "a", "training", "valid"], "root")
    assert found == {"train": "training", "val": "valid", "test": "Test"}
    assert list(found) == ["train", "val", "test"]
    with pytest.raises(UserError, match="root: Train and training are both for training; keep one"):
        name_parts(["Train", "training"], "root")
