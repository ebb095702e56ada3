"""What is found out about images and masks before a run: refused, or told."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from spanets.formats.colours import Colours
from spanets.segmentation.data import check_parts
from spanets.segmentation.masks import survey as mask_survey
from spanets.segmentation.masks.findings import name_colour
from spanets.segmentation.masks.reading import MaskedImages
from spanets.segmentation.masks.values import given_values, plain_values
from spanets_runtime.errors import UserError

RED, BLUE, GREEN = (220, 40, 40), (40, 60, 220), (0, 160, 0)
SIZE = (6, 8)


@pytest.fixture
def make(tmp_path):
    """Makes a part of masks of these numbers, a row of pixels each number."""

    def make_part(*masks, classes=("ground", "road"), values=None, part="train"):
        (tmp_path / part).mkdir()
        images, paths = [], []
        for i, numbers in enumerate(masks):
            images.append(tmp_path / part / f"{i}.jpg")
            paths.append(tmp_path / part / f"{i}.png")
            Image.new("RGB", SIZE[::-1]).save(images[-1])
            if not isinstance(numbers, Image.Image):
                numbers = Image.fromarray(np.resize(np.array(numbers, np.uint8)[:, None], SIZE))
            numbers.save(paths[-1])
        meaning = values and given_values(values, classes)
        meaning = meaning or plain_values(len(classes))
        return MaskedImages(images, paths, list(classes), meaning, ("one note",))

    return make_part


def check(*parts, is_training=True) -> tuple[str, ...]:
    return check_parts(dict(zip(("train", "val"), parts, strict=False)), is_training)


def refusal(*parts, is_training=True) -> str:
    with pytest.raises(UserError) as caught:
        check(*parts, is_training=is_training)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def paletted(numbers, *colours) -> Image.Image:
    image = Image.fromarray(np.resize(np.array(numbers, np.uint8)[:, None], SIZE))
    image.putpalette(sum(colours, ()))
    return image


# ---- good masks


def test_nothing_to_tell(make):
    assert check(make([0, 1], [1]), make([0], [1], part="val")) == ("one note",)


def test_ignored_pixels_and_missing_classes_are_told(make):
    parts = make([0, 1], [0, 255], [1, 255], [255, 1], classes=("ground", "road", "sky", "sea"))
    assert check(parts) == (
        "one note",
        "train: 2 classes have no pixel in 4 masks: 'sky', 'sea'",
        "train: 37.5% of the pixels of 4 masks are ignored (255)",
    )


def test_many_masks_are_looked_at_in_part(make, monkeypatch):
    monkeypatch.setattr(mask_survey, "MAX_MASKS", 3)
    samples = make(*[[0, 1]] * 7, [0, 9], [0, 1])
    assert "train: 3 masks of 9 were looked at before the start" in check(samples)
    monkeypatch.setattr(mask_survey, "MAX_MASKS", 100)
    monkeypatch.setattr(mask_survey, "MAX_MASK_PIXELS", 200)  # four masks
    assert "train: 4 masks of 9 were looked at before the start" in check(samples)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_a_sample_is_spread_evenly(count):
    chosen = mask_survey._spread(count, 7)
    assert len(chosen) == min(count, 7)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0 and chosen[-1] == count - 1
    assert max(np.diff(chosen), default=0) <= np.ceil(count / 6)


# ---- files that cannot be used


def test_all_that_cannot_be_used_is_named_at_once(make):
    train = make([0, 1], [0, 1], [0, 1], [0, 1])
    val = make([0, 1], [0, 1], part="val")
    Image.new("L", (3, 4)).save(train.masks[1])
    train.masks[2].write_bytes(train.masks[2].read_bytes()[:45])
    train.images[3].write_bytes(b"")
    val.images[1].write_bytes(val.images[1].read_bytes()[:300])  # the header is whole
    line = refusal(train, val)
    assert line.startswith(f"4 of 6 images or their masks cannot be used: {train.masks[1]}: 3x4 ")
    assert f"; {train.masks[2]}: " in line
    assert line.endswith(f"{train.images[3]}: the file is empty; and 1 more; mend or remove them")


def test_one_reason_for_many_files(make):
    train, val = make([0, 1], [0, 1]), make([0, 1], part="val")
    for path in (*train.masks, *val.masks):
        Image.new("RGB", SIZE[::-1], (0, 0, 9)).save(path)
    line = refusal(train, val)
    assert line.startswith(f"3 of 3 images or their masks cannot be used: {train.masks[0]}: its ")
    assert line.endswith("PNG with 8-bit gray or a palette (3 of them); mend or remove them")


def test_headers_of_masks_that_are_not_looked_at(make, monkeypatch):
    monkeypatch.setattr(mask_survey, "MAX_MASKS", 2)
    train = make(*[[0, 1]] * 5)
    Image.new("L", (3, 4)).save(train.masks[2])
    assert "1 of 5 images or their masks cannot be used" in refusal(train)


def test_the_rest_of_a_broken_data_set_is_left(make, monkeypatch):
    monkeypatch.setattr(mask_survey, "MAX_BROKEN", 4)
    monkeypatch.setattr("spanets.segmentation.masks.findings.MAX_BROKEN", 4)
    train = make(*[[0, 1]] * 6)
    for path in train.masks:
        path.write_bytes(b"")
    line = refusal(train)
    assert line.startswith("at least 4 of 6 images or their masks cannot be used: ")
    assert line.endswith("the file is empty (4 of them); mend or remove them")


def test_turned_images_fit_turned_masks(make):
    train = make([0, 1], [1, 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(train.images[0], exif=exif)
    assert check(train) == ("one note",)
    Image.new("RGB", SIZE[::-1]).save(train.images[0], exif=exif)
    assert "8x6 pixels, but its image" in refusal(train)


# ---- numbers that are hardly meant


@pytest.mark.parametrize("is_training", [True, False])
def test_black_and_white_masks(make, is_training):
    line = refusal(make([0, 255], [0, 255]), is_training=is_training)
    assert "the masks hold 0 and 255 alone, but 255 is for pixels to ignore; " in line
    if is_training:
        told = "set data.mask_values to binary if it is 'road', or to {0: 0, 1: 1, 255: ignore}"
    else:
        told = "if it is 'road', save it as 1, or train with data.mask_values binary"
    assert told in line


def test_masks_of_one_bit_among_black_and_white_ones(make):
    line = refusal(make([0, 1], [0, 255], [0, 1]))
    assert "some masks hold 1 (2, such as 0.png), others 255 (1, such as 1.png), and none" in line


def test_black_and_white_masks_of_validation(make):
    line = refusal(make([0, 1], [0, 1]), make([0, 255], part="val"))
    assert "val: the masks hold 0 and 255 alone" in line


def test_one_mask_shows_that_white_is_no_class(make):
    train, val = make([0, 1, 255], [0, 255]), make([0, 255], part="val")
    assert "val: 1 class has no pixel in 1 mask: 'road'" in check(train, val)


def test_a_part_that_does_not_show_it_alone(make):
    train, val = make([0, 1, 255], [0, 1]), make([0, 255], [0, 1], part="val")
    check(train, val)
    assert "none both" in refusal(val, is_training=False)
    found = check_parts({"val": val}, is_training=False, is_known=True)
    assert found[-1] == "val: 25.0% of the pixels of 2 masks are ignored (255)"


def test_colours_of_ignored_pixels_are_listed(make, tmp_path):
    colours = Colours(tmp_path, ["ground", "road"], {RED: 0, BLUE: 1, GREEN: 255})
    one, two = (Image.new("RGB", SIZE[::-1], RED) for _ in range(2))
    one.paste(GREEN, (0, 0, 2, 2))
    two.paste(BLUE, (0, 0, 2, 2))
    assert "ignored (255)" in check(replace(make(one, two), colours=colours))[-1]


def test_masks_that_are_white_alone(make):
    assert "the masks hold 255 alone" in refusal(make([255], part="val"), is_training=False)


@pytest.mark.parametrize("values", ["binary", {0: 0, 1: 1, 255: "ignore"}, {0: 0, 1: 1, 255: 1}])
def test_a_recipe_settles_it(make, values):
    assert "one note" in check(make([0, 1], [0, 255], [0, 1], values=values))


def test_white_beside_one_of_many_classes(make):
    part = make([0, 255], [0, 255], classes=("ground", "road", "sky"))
    assert refusal(part).endswith("set data.mask_values, which says the class of each number")
    assert "train: 2 classes have no pixel in 2 masks: 'road', 'sky'" in check(
        part, is_training=False
    )


def test_one_class_is_nothing_to_learn(make):
    part = make([0], [0])
    assert "of the 2 classes the training masks hold 0 (ground)" in refusal(part)
    assert "train: 1 class has no pixel in 2 masks: 'road'" in check(part, is_training=False)


@pytest.mark.parametrize(
    ("numbers", "classes", "advice"),
    [
        ([0, 127], "ab", "binary (0 is 'a', every other number 'b')"),
        ([0, 128, 255], "abc", "{0: a, 128: b, 255: c}"),
        ([0, 38, 75], "abc", "{0: a, 38: b, 75: c}"),
        ([1, 2, 3], "abc", "{1: a, 2: b, 3: c}"),
        ([0, 1, 2, 3], "abc", "{0: ignore, 1: a, 2: b, 3: c}"),
    ],
)
def test_numbers_that_are_no_class(make, numbers, classes, advice):
    line = refusal(make(numbers, numbers, classes=tuple(classes)))
    wrong = [n for n in numbers if n >= len(classes) and n != 255]
    assert f"2 masks hold numbers that are no class: {str(wrong)[1:-1]} (first: " in line
    assert f"; mend them, or set data.mask_values, such as {advice}" in line


def test_a_number_that_one_mask_has_is_a_mistake(make):
    line = refusal(make(*[[0, 1]] * 4), make([0, 1], [0, 7], part="val"))
    assert line.startswith("a mask holds numbers that are no class: 7 (first: 7 in ")
    assert line.endswith(
        "val/1.png), but the 2 classes are 0 to 1 (and 255 for pixels to ignore); mend them"
    )


def test_numbers_that_a_recipe_lacks(make):
    line = refusal(make([0, 255], [0, 7], values={0: 0, 255: 1}))
    assert line.endswith("but the 2 classes are 0, 255; mend data.mask_values")


# ---- palettes


def test_numbers_of_other_colours_in_other_masks(make, tmp_path):
    train = make(
        paletted([0, 1], (0, 0, 0), RED, BLUE),
        paletted([0, 1], (0, 0, 0), BLUE, RED),
        paletted([0, 1], (0, 0, 0), RED, BLUE),
        [0, 1],
    )
    assert check(train)[1:] == (
        "numbers mean other colours in 1 of 3 masks with a palette: 1 is red (220, 40, 40) in "
        f"{tmp_path}/train/0.png and blue (40, 60, 220) in {tmp_path}/train/1.png; if the colours "
        "are the classes, number them alike in all masks",
    )


def test_palettes_are_compared_over_parts(make):
    train = make(*[paletted([0, 1], (0, 0, 0), RED)] * 2)
    val = make(paletted([0, 1], (0, 0, 0), GREEN), part="val")
    assert "in 1 of 3 masks" in check(train, val)[-1]


def test_palettes_that_say_nothing(make):
    """Colours of numbers that no pixel has, and shades of gray."""
    train = make(
        paletted([0, 1], (0, 0, 0), RED, BLUE),
        paletted([0, 1], (0, 0, 0), RED, GREEN),
        paletted([0, 1], (0, 0, 0), (1, 1, 1)),
        paletted([0, 1], (0, 0, 0), (255, 255, 255)),
    )
    assert check(train) == ("one note",)


def test_names_of_colours():
    assert name_colour((250, 10, 5)) == "red (250, 10, 5)"
    assert name_colour((0, 0, 0)) == "black (0, 0, 0)"
