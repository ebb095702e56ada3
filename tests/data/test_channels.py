"""Data sets of many channels: augmentation, bands in files, keys and statistics."""

import numpy as np
import pytest
import torch
from PIL import Image

from spanets.classification.recipe import ClassificationData
from spanets.data.image_level.arrays import describe_arrays
from spanets.data.image_level.dataset import ImageDataset
from spanets.data.image_level.splits import read_splits
from spanets.data.image_level.transforms import (
    evaluation_transform,
    preprocessing_of,
    standardize,
    train_transform,
)
from spanets.data.samples import Samples
from spanets.data.statistics.report import describe_data
from spanets.data.statistics.text import describe_statistics
from spanets.recipe import parse_recipe
from spanets_runtime.arrays import PixelFormat
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.preprocessing import Preprocessing

RNG = np.random.default_rng(0)


def recipe_of(**data):
    return parse_recipe({"task": "classification", "data": data}, origin="test")


def settings(**changes) -> ClassificationData:
    return ClassificationData(image_size=32, **changes)


def dataset_of(path, data, seed=3) -> ImageDataset:
    pixels = PixelFormat.parse(preprocessing_of(data))
    samples = Samples([path] * 4, [0] * 4, ["a"])
    return ImageDataset(samples, train_transform(data), seed=seed, pixels=pixels)


def smooth(count, dtype=np.uint8, size=60):
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(3 * x + i) * np.cos(2 * y - i) for i in range(count)]
    top = np.iinfo(dtype).max
    return ((np.stack(waves, -1) * 0.4 + 0.5) * top).astype(dtype)


# ---- augmentation


@pytest.mark.parametrize("interpolation", ["random", "bilinear"])
def test_random_draws_are_those_of_rgb(tmp_path, interpolation):
    Image.fromarray(smooth(3)).save(tmp_path / "a.png")
    rgb = settings(vflip=0.5, train_interpolation=interpolation)
    stored = settings(vflip=0.5, train_interpolation=interpolation, channels=3)
    ours, theirs = (dataset_of(tmp_path / "a.png", data) for data in (stored, rgb))
    for index in range(4):
        a, b = ours[(1, index)][0], theirs[(1, index)][0]
        assert a.dtype == torch.float32
        assert (a - b / 255).abs().max() < 1.1 / 255  # Pillow truncates between its passes
    a, b = (standardize(x[None], data) for x, data in ((a, stored), (b, rgb)))
    assert (a - b).abs().max() < 1.1 / 255 / min(rgb.std)


def test_training_depends_on_seed_epoch_and_index(tmp_path):
    np.save(tmp_path / "a.npy", smooth(5, np.uint16))
    data = settings(channels=5, mean=(0.5,) * 5, std=(0.2,) * 5)
    one, same, other = (dataset_of(tmp_path / "a.npy", data, seed) for seed in (3, 3, 4))
    assert torch.equal(one[(2, 1)][0], same[(2, 1)][0])
    assert not torch.equal(one[(2, 1)][0], one[(3, 1)][0])
    assert not torch.equal(one[(2, 1)][0], other[(2, 1)][0])
    assert one[(0, 0)][0].shape == (5, 32, 32)


def test_erasing_works_on_any_channels():
    data = settings(channels=5, random_erasing=1.0, mean=(0.5,) * 5, std=(0.2,) * 5)
    found = standardize(torch.full((2, 5, 32, 32), 0.5), data)
    assert found.shape == (2, 5, 32, 32)
    assert (found != 0).any()


def test_evaluation_standardizes_by_channel(tmp_path):
    array = RNG.normal(size=(32, 32, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 2.0, 3.0, 4.0, 5.0)
    data = settings(channels=5, crop_pct=1.0, mean=mean, std=std, value_range=(-1.0, 3.0))
    preprocessing = preprocessing_of(data)
    read = Preprocessing.parse(preprocessing, "x").read
    found = evaluation_transform(preprocessing)(read(tmp_path / "a.npy"))
    expected = ((array + 1) / 4 - mean) / std
    np.testing.assert_allclose(found.numpy(), expected.transpose(2, 0, 1), atol=1e-6)


def test_left_out_augmentation_is_named():
    data = settings(channels=5, color_jitter=0.4, auto_augment="rand-m9")
    (note,) = describe_arrays(data)
    assert "data.color_jitter 0.4, data.auto_augment rand-m9" in note
    assert describe_arrays(settings(color_jitter=0.4)) == ()
    assert describe_arrays(settings(channels=5)) == ()


# ---- keys


def test_rgb_metadata_are_as_before():
    assert set(preprocessing_of(settings())) == {
        "input_size", "crop_pct", "interpolation", "mean", "std"
    }  # fmt: skip
    five = preprocessing_of(settings(channels=5, bands=list("abcde")))
    assert five["input_size"] == [5, 32, 32]
    assert five["channels"] == 5
    assert five["bands"] == list("abcde")


def test_one_number_stands_for_all_channels():
    data = recipe_of(channels=5, mean=0.5, std=[0.25]).data
    assert data.mean == (0.5,) * 5
    assert data.std == (0.25,) * 5
    assert recipe_of(mean=0.5).data.mean == (0.5,) * 3
    assert recipe_of().data.mean == (0.485, 0.456, 0.406)
    assert recipe_of(channels=3).data.mean == (0.485, 0.456, 0.406)


WRONG = {
    "no mean": ({"channels": 5}, "data.mean has 3 numbers, .* 5 channels.*--channels 5"),
    "null": ({"channels": 5, "mean": None}, "data.mean is not set"),
    "two numbers": ({"mean": [0.1, 0.2]}, "data.mean has 2 numbers, and images have 3 channels"),
    "0..255": ({"mean": [123, 117, 104]}, "data.mean is 123.0, allowed: 0 to 1"),
    "no numbers": ({"mean": []}, "must be a number or a list of numbers"),
    "channels": ({"channels": 17}, "data.channels is 17, allowed: 1 to 16"),
    "range": ({"channels": 3, "value_range": [3, 1]}, "data.value_range is"),
    "range alone": ({"value_range": [0, 1]}, "goes with data.channels"),
    "bands alone": ({"bands": ["a"]}, "goes with data.channels"),
    "count": ({"channels": 3, "bands": ["a"]}, "data.1 bands, and channels is 3"),
    "path": ({"channels": 3, "bands": ["a", "b", "../c"]}, "band '../c' must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_keys_are_named(name):
    data, message = WRONG[name]
    with pytest.raises(UsageError, match=message):
        recipe_of(**data)


def test_other_tasks_say_that_they_read_rgb():
    with pytest.raises(UsageError, match=r"data.channels: is for tasks on whole images; segm.*RGB"):
        parse_recipe({"task": "segmentation", "data": {"channels": 5}}, origin="test")


# ---- data sets


def make_bands(root, bands=("B02", "B03"), count=4):
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            for band in bands:
                array = RNG.integers(0, 4096, (12, 16), np.uint16)
                Image.fromarray(array).save(root / name / f"s{i}_{band}.png")
    return root


def test_each_image_of_bands_is_listed_once(tmp_path):
    root = make_bands(tmp_path / "d")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "cat" / "preview.png")
    data = settings(root=str(root), channels=2, bands=["B02", "B03"])
    parts = read_splits(data)
    images = [str(image) for part in parts.values() for image in part.images]
    assert len(images) == 8
    assert all(image.endswith("_B02.png") for image in images)
    assert any("1 file left out, of none of the bands" in note for note in parts["train"].notes)


def test_missing_bands_are_counted(tmp_path):
    root = make_bands(tmp_path / "d")
    (root / "cat" / "s1_B03.png").unlink()
    (root / "dog" / "s2_B02.png").unlink()
    data = settings(root=str(root), channels=2, bands=["B02", "B03"])
    with pytest.raises(UserError, match=r"2 of 8 images lack a band, such as .*s1_\*.png \(no B03"):
        read_splits(data)
    with pytest.raises(UserError, match=r"none of 14 files is of a band of data.bands \(x, y\)"):
        read_splits(settings(root=str(root), channels=2, bands=["x", "y"]))


def test_arrays_are_images_only_with_channels(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            np.save(tmp_path / name / f"{i}.npy", np.zeros((8, 8, 3), np.float32))
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    count = {n: sum(map(len, read_splits(settings(root=str(tmp_path), channels=n)).values()))
             for n in (None, 3)}  # fmt: skip
    assert count == {None: 8, 3: 16}


# ---- statistics


@pytest.mark.parametrize("value_range", [None, (0.0, 4095.0)])
def test_statistics_are_numpys(tmp_path, value_range):
    arrays = [RNG.integers(0, 4096, (20, 24, 4), np.uint16) for _ in range(4)]
    for i, array in enumerate(arrays):
        folder = tmp_path / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{i}.npy", array)
    results = describe_data(tmp_path, pixels=PixelFormat(4, value_range))
    scale = 65535 if value_range is None else 4095
    values = np.stack(arrays).reshape(-1, 4) / scale
    assert results["pixels"]["mean"] == pytest.approx(values.mean(0), rel=1e-5)
    assert results["pixels"]["std"] == pytest.approx(values.std(0), rel=1e-5)
    assert results["pixels"]["channels"] == 4
    assert results["modes"] == {"uint16": 4}
    assert "--data.channels 4" in results["command"]
    assert ("--data.value_range 0.0,4095.0" in results["command"]) == (value_range is not None)
    assert "of channels 1 to 4 in 0..1" in describe_statistics(results)


def test_images_that_differ_are_named_with_counts(tmp_path):
    for i, dtype in enumerate((np.uint16, np.uint16, np.uint8, np.float32)):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        np.save(
            tmp_path / "ab"[i % 2] / f"{i}.npy", RNG.integers(0, 200, (40, 40, 4)).astype(dtype)
        )
    np.save(tmp_path / "a" / "other.npy", np.zeros((8, 8, 3), np.uint8))
    results = describe_data(tmp_path, out=tmp_path.parent / "out", pixels=PixelFormat(4))
    text = "\n".join(results["odd"])
    assert "1 of 5 images left out, unreadable" in text
    assert "mixed: images of several types" in text
    assert "2 of uint16, as a/0.npy; 1 of uint8, as a/2.npy" in text
    assert "1 of 5 images with numbers beyond 100 after scaling" in text
    assert (tmp_path.parent / "out" / "sheet.png").is_file()
    yaml = (tmp_path.parent / "out" / "stats.yaml").read_text()
    assert "  channels: 4\n" in yaml
