"""Which mask is whose: names that differ, files left out, and what is refused."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from spanets.formats.pairs import pair_masks
from spanets_runtime.errors import UserError

PNG = np.zeros((6, 8), np.uint8)


@pytest.fixture
def make(tmp_path):
    """Makes empty files of these names in images/ and masks/; returns the pairs of stems."""

    def make_both(images, masks):
        for folder, names in (("images", images), ("masks", masks)):
            for name in names:
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        (tmp_path / "masks").mkdir(exist_ok=True)
        return pair_masks(tmp_path / "images", tmp_path / "masks")

    return make_both


def names(pairs):
    return {a.name: b.name for a, b in zip(pairs.images, pairs.masks, strict=True)}


def test_names_that_agree(make, tmp_path):
    pairs = make(["a.jpg", "b.c.png", "deep/er/d.jpeg"], ["a.png", "b.c.png", "deep/er/d.png"])
    assert names(pairs) == {"a.jpg": "a.png", "b.c.png": "b.c.png", "d.jpeg": "d.png"}
    assert pairs.notes == ()


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a.PNG"),
        ("a.jpg", "a.tif"),
        ("a.jpg", "a.bmp"),
        ("IMG_1.JPG", "img_1.png"),
        (
            unicodedata.normalize("NFC", "Straße_ä.jpg"),
            unicodedata.normalize("NFD", "Straße_ä.png"),
        ),
        (unicodedata.normalize("NFD", "é/ä.jpg"), unicodedata.normalize("NFC", "é/ä.png")),
    ],
)
def test_the_one_that_fits(make, image, mask):
    pairs = make([image, "other.jpg"], [mask, "other.png"])
    assert len(pairs.masks) == 2
    (note,) = pairs.notes
    assert "a mask is found under names that differ in suffix, letter case or Unicode" in note


def test_a_png_of_the_same_name_comes_first(make):
    pairs = make(["a.jpg", "A.jpg"], ["a.png", "A.png", "a.tif"])
    assert names(pairs) == {"a.jpg": "a.png", "A.jpg": "A.png"}
    (note,) = pairs.notes
    assert "1 file left out, no image has that name, such as a.tif" in note


@pytest.mark.parametrize("ending", ["_mask", "-label", ".jpg", "_gtFine_labelIds", " (mask)"])
def test_an_ending_that_all_masks_have(make, ending):
    images = ["1.jpg", "12.jpg", "1_2.jpg", "deep/1.jpg"]
    pairs = make(images, [f"{name[:-4]}{ending}.png" for name in images])
    assert [m.stem for m in pairs.masks] == [f"{i.stem}{ending}" for i in pairs.images]
    (note,) = pairs.notes
    assert "4 masks are found under names with an ending of their own, such as '1" in note
    assert f"{ending}.png' for '1" in note


def test_what_is_left_out_is_counted(make, tmp_path):
    pairs = make(["a.jpg", "notes.txt"], ["a.png", "b.png", "c.png", "a.json", ".hidden.png"])
    assert pairs.notes == (
        f"{tmp_path}/images: 1 file left out, not known as images (1 .txt)",
        f"{tmp_path}/masks: 1 file left out, not known as images (1 .json)",
        f"{tmp_path}/masks: 2 files left out, no image has that name, such as b.png",
    )


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (["a.jpg"], ["a.tif", "a.bmp"], r"a\.jpg: a\.bmp and a\.tif in .*masks may both be its"),
        (["a.jpg"], ["a_x.png", "a_y.png"], r"a_x\.png and a_y\.png in .* may both be its mask"),
        (["a.jpg", "a.png"], ["a.png"], r"a\.png: is the mask of several images"),
        (["a.jpg", "a.PNG"], ["A.png"], r"A\.png: is the mask of several images"),
        (
            ["1.jpg", "2.jpg", "frame_3.jpg"],
            ["1.png", "2.png", "frame3.png"],
            r"masks: 1 of 3 images without a mask, such as \S+images/frame_3\.jpg "
            r"\(\S+masks/frame_3\.png is missing, but frame3\.png is there\)",
        ),
        (["a.jpg", "b.jpg"], ["a.png"], r"1 of 2 .* \(\S+masks/b\.png is missing\); rename or add"),
        # 12_mask is the mask of 12, not of 1
        (["1.jpg", "2.jpg"], ["12_mask.png", "2_mask.png"], "2 of 2 images without a mask"),
    ],
)
def test_what_is_refused(make, images, masks, message):
    with pytest.raises(UserError, match=message) as caught:
        make(images, masks)
    assert "\n" not in str(caught.value)


def test_folders_that_lack(tmp_path):
    with pytest.raises(UserError, match=r"images: no such folder"):
        pair_masks(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"images: a folder without images"):
        pair_masks(tmp_path / "images", tmp_path / "masks")
    Image.fromarray(PNG).save(tmp_path / "images/a.png")
    with pytest.raises(UserError, match=r"masks: no such folder; the masks of .*images belong"):
        pair_masks(tmp_path / "images", tmp_path / "masks")
