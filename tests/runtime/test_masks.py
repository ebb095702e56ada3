"""Pictures of masks: numbers to go on with, and colours to look at."""

import numpy as np
import pytest
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.labels import load_labels
from spanets_runtime.masks import class_colours, mask_image, overlay, predict_masks, read_numbers


def test_colours_differ():
    assert len({tuple(colour) for colour in class_colours(150).tolist()}) == 150
    few = class_colours(8).astype(int)
    distances = np.abs(few[:, None] - few[None]).sum(-1) + 1000 * np.eye(8)
    assert distances.min() > 60


def test_masks_are_numbers_with_a_palette(tmp_path):
    numbers = np.array([[0, 1], [149, 2]], np.uint8)
    for first in (0, 1):
        mask_image(numbers, range(first, 150 + first)).save(tmp_path / "mask.png")
        saved = Image.open(tmp_path / "mask.png")
        assert saved.mode == "P"
        assert (np.asarray(saved) == numbers + first).all()
        colours = np.asarray(saved.convert("RGB"))
        assert (colours == class_colours(150)[numbers]).all()


def test_overlays_keep_the_image_visible():
    image = Image.new("RGB", (4, 3), (200, 200, 200))
    laid = np.asarray(overlay(image, np.ones((3, 4), np.uint8), 2))
    assert np.abs(laid[0, 0] - (200 + class_colours(2)[1].astype(float)) / 2).max() <= 1


@pytest.mark.parametrize("numbers", [[0, 1, 2], [1, 2, 3], [0, 128, 255], [7, 300, 65535]])
def test_masks_have_the_numbers_of_training(tmp_path, numbers):
    labels = np.random.default_rng(0).integers(0, 3, (6, 5), np.uint8)
    mask_image(labels, numbers).save(tmp_path / "mask.png")
    assert (load_labels(tmp_path / "mask.png") == np.array(numbers)[labels]).all()


def test_numbers_that_a_checkpoint_tells():
    assert read_numbers({}, 3, "x.ckpt") == [0, 1, 2]
    assert read_numbers({"first": 1}, 2, "x.ckpt") == [1, 2]
    assert read_numbers({"first": 0, "values": [0, 255]}, 2, "x.ckpt") == [0, 255]
    for damaged in ({"first": 2}, {"values": [0]}, {"values": [0, -1]}, {"values": [0, 2**16]}):
        with pytest.raises(UserError, match=r"x\.ckpt: the preprocessing is damaged"):
            read_numbers(damaged, 2, "x.ckpt")


# ---- what predicting may write


def bright(image):
    return np.asarray(image.convert("L")) // 128


def predict(images, out):
    return list(predict_masks(images, bright, ["dark", "light"], out, [0, 1]))


@pytest.fixture
def shots(tmp_path):
    (tmp_path / "shots").mkdir()
    paths = [tmp_path / "shots" / name for name in ("1.png", "2.png")]
    for path in paths:
        Image.new("RGB", (8, 6), "white").save(path)
    return paths


def test_photographs_are_never_replaced(shots):
    before = [path.read_bytes() for path in shots]
    with pytest.raises(UserError, match=r"1\.png: is the image .* and would be overwritten"):
        predict(shots, shots[0].parent)
    assert [path.read_bytes() for path in shots] == before
    assert sorted(path.name for path in shots[0].parent.iterdir()) == ["1.png", "2.png"]


def test_files_of_others_are_never_replaced(shots, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("2.png", "2-overlay.jpg"):
        (tmp_path / "out" / name).write_bytes(b"precious")
        with pytest.raises(UserError, match=rf"{name}: already exists, and `spanets` did not"):
            predict(shots, tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]  # before the first
        (tmp_path / "out" / name).unlink()


def test_predicting_again_replaces_what_it_left(shots, tmp_path):
    first, second = (predict(shots, tmp_path / "out") for _ in range(2))
    assert first == second
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_photographs_stay_beside_their_masks(shots):
    """JPEGs and masks may lie in one folder."""
    photos = [path.rename(path.with_suffix(".jpg")) for path in shots]
    assert [found.error for found in predict(photos, photos[0].parent)] == [None, None]
    assert [found.error for found in predict(photos, photos[0].parent)] == [None, None]


@pytest.mark.parametrize("size", [(4000, 2), (2, 3000), (1, 1), (1, 100_000)])
def test_thin_images(tmp_path, size):
    Image.new("RGB", size, "white").save(tmp_path / "thin.png")
    (found,) = predict([tmp_path / "thin.png"], tmp_path / "out")
    assert found.shares == {"light": 1.0}
    assert Image.open(found.mask).size == size


def test_an_unreadable_image_costs_no_other(shots, tmp_path):
    shots[0].write_bytes(b"none")
    found = predict(shots, tmp_path / "out")
    assert found[0].error is not None and found[1].error is None
