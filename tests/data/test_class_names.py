"""Names of classes: alike under Unicode's spellings, and compared with a checkpoint's."""

import unicodedata

import pytest

from spanets.data.class_names import compare_classes, describe_twins, match_classes
from spanets_runtime.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_spellings_of_unicode_are_one_name():
    assert NFC != NFD
    assert compare_classes([NFC, "dog"], [NFD, "dog"]) == ""
    assert match_classes([NFD, "dog"], ["dog", NFC]) == [1, 0]
    assert match_classes([NFD, NFC], [NFC, NFD]) == [1, 0]  # a model that has both


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["cat", "dog"], ["dog", "zebra"], "'cat' is missing, 'zebra' is new"),
        (["cat", "dog"], ["cat"], "'dog' is missing"),
        (["cat", "dog"], ["ant", "cat", "cow", "dog"], "'ant', 'cow' are new"),
        (["cat", "dog"], ["dog", "cat"], "in another order: number 0 is 'dog', not 'cat'"),
        (list("abcdefg"), ["x"], "'a', 'b', 'c', 'd', 'e' and 2 more are missing, 'x' is new"),
        (["a", "b"], ["a", "b", "b"], "3 classes instead of 2, some of them twice"),
    ],
)
def test_differences(before, now, said):
    assert compare_classes(before, now) == said


def test_classes_that_a_model_does_not_know():
    with pytest.raises(UserError, match=r"the model has no class 'dgo'; did you mean 'dog'\?"):
        match_classes(["cat", "dgo"], ["cat", "dog"])
    with pytest.raises(UserError, match=r"the model has no class 'zebra'; it has cat, dog$"):
        match_classes(["zebra"], ["cat", "dog"])


def test_twins_are_told():
    assert describe_twins(["cat", "dog"], "root") == ()
    (line,) = describe_twins(["Cat", "cat", "dog"], "root")
    assert line == "root: classes 'Cat' and 'cat' differ in letter case alone; they are 2 classes"
    (line,) = describe_twins([NFC, NFD], "root")
    assert "differ in their Unicode spelling alone" in line
