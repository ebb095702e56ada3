"""`spanets stats`: what it counts, and what it finds odd."""

import json
import os
import shlex
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image
from small_runs import call, make_photos

from spanets.data.sources.shard_writer import write_shards
from spanets.data.statistics.measuring import measure_image
from spanets.data.statistics.report import describe_data
from spanets.recipe import load_recipe


@pytest.fixture
def parts(tmp_path):
    """Two classes in two parts, without anything odd."""
    make_photos(tmp_path / "data/train", cat=10, dog=12)
    make_photos(tmp_path / "data/val", size=44, cat=4, dog=4)
    return tmp_path / "data"


def test_nothing_odd(parts):
    found = describe_data(parts)
    assert found["odd"] == found["unreadable"] == found["notes"] == []
    assert found["classes"] == {"cat": {"train": 10, "val": 4}, "dog": {"train": 12, "val": 4}}
    assert found["kinds"] == {"PNG": 30}
    assert found["modes"] == {"RGB, 8 bits": 30}
    assert found["sizes"]["width"] == {"smallest": 40, "median": 40, "largest": 44}
    assert found["sizes"]["aspect"]["median"] == 1
    assert found["copies"] == {"images": 0, "contents": 0, "listed": []}


def test_mean_and_deviation_are_those_of_the_training_pixels(parts):
    pixels = [np.asarray(Image.open(p)) / 255 for p in (parts / "train").rglob("*.png")]
    found = describe_data(parts)["pixels"]
    assert (found["images"], found["part"]) == (22, "train")
    assert found["mean"] == pytest.approx(np.mean(pixels, (0, 1, 2)), abs=6e-5)
    assert found["std"] == pytest.approx(np.std(pixels, (0, 1, 2)), abs=6e-5)


def test_images_of_any_size_have_the_same_weight(tmp_path):
    for name, side, value in (("a", 40, 0), ("b", 400, 255)):
        Image.new("L", (side, side), value).save(tmp_path / f"{name}.png")
    assert describe_data(tmp_path)["pixels"]["mean"] == [0.5] * 3


ODD = {
    "leak: 2 images of val also in train": lambda d: [
        shutil.copy(d / "train/cat/0.png", d / f"val/cat/copy{i}.png") for i in range(2)
    ],
    "1 content in images of several classes": lambda d: shutil.copy(
        d / "train/cat/1.png", d / "train/dog/x.png"
    ),
    "1 image with the same content as an earlier one": lambda d: shutil.copy(
        d / "train/cat/1.png", d / "train/cat/x.png"
    ),
    "classes 'Cat ' and 'cat' differ only in letter case or spaces": lambda d: make_photos(
        d / "train", size=50, **{"Cat ": 10}
    ),
    "1 class without images in val: 'fox'": lambda d: make_photos(d / "train", size=50, fox=10),
    "1 class with fewer than 10 training images: 'fox' (3)": lambda d: make_photos(
        d / "train", size=50, fox=3
    ),
    "1 class folder without images, such as": lambda d: (d / "train/fox").mkdir(),
    "unbalanced: 'dog' has 12 training images, 'fox' has 1, a ratio of 12": lambda d: make_photos(
        d / "train", size=50, fox=1
    ),
    "1 of 31 images left out, unreadable": lambda d: (d / "val/cat/x.png").write_bytes(b"<html>"),
    "1 of 31 images with a suffix of another format": lambda d: Image.new("RGB", (40, 41)).save(
        d / "val/cat/x.jpg", format="PNG"
    ),
    "1 of 31 images of one colour only": lambda d: Image.new("RGB", (40, 41)).save(
        d / "val/cat/x.png"
    ),
    "1 of 31 images with transparent pixels": lambda d: Image.new("RGBA", (40, 41)).save(
        d / "val/cat/x.png"
    ),
    "1 of 31 images with more than 8 bits a channel": lambda d: Image.fromarray(
        np.arange(1600, dtype=np.uint16).reshape(40, 40)
    ).save(d / "val/cat/x.png"),
    "1 of 31 images with a shorter side below 32": lambda d: Image.new("RGB", (31, 40)).save(
        d / "val/cat/x.png"
    ),
    "1 of 31 images with a longer side of more than 4 times": lambda d: Image.new(
        "RGB", (40, 161)
    ).save(d / "val/cat/x.png"),
    "1 of 31 images in CMYK": lambda d: Image.new("CMYK", (40, 40)).save(d / "val/cat/x.jpg"),
    "mixed: 1 of 31 images in gray, 30 in colour": lambda d: Image.new("L", (40, 40)).save(
        d / "val/cat/x.png"
    ),
}


@pytest.mark.parametrize("line", ODD)
def test_odd_things_are_found(line, parts):
    ODD[line](parts)
    assert [found for found in describe_data(parts)["odd"] if found.startswith(line)]


def test_opaque_alpha_is_not_odd(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).convert(
        "RGBA"
    ).save(tmp_path / "a.png")
    assert measure_image(tmp_path / "a.png").odd == ()


def test_workers_change_nothing(parts):
    assert describe_data(parts, workers=2) == describe_data(parts)


def test_the_files_and_the_command(parts, tmp_path, capsys):
    (parts / "val/dog/bad.png").write_bytes(b"no")
    out = tmp_path / "out"
    words = ["stats", parts, "--out", out, "--workers", "0"]
    status, printed, said = call(capsys, *words)
    assert status == 1
    assert "bad.png: not an image" in said
    lines = printed.splitlines()
    assert lines[1:3] == [
        "looks odd: 1",
        f"  - 1 of 31 images left out, unreadable, such as {said[9:].strip()}",
    ]
    command = shlex.split(lines[-1].partition(": ")[2])
    recipe = load_recipe(command[2], command[3:])
    values = yaml.safe_load((out / "stats.yaml").read_text())["data"]
    assert [*recipe.data.mean, *recipe.data.std] == [*values["mean"], *values["std"]]
    stored = json.loads((out / "stats.json").read_text())["stats"]
    assert stored["pixels"]["mean"] == values["mean"]
    assert Image.open(out / "sheet.png").size[0] > 6 * 160

    status, printed, _ = call(capsys, *words, "--json")  # our own files are replaced
    assert status == 1
    assert json.loads(printed)["odd"] == stored["odd"]


def test_other_peoples_files_stay(parts, tmp_path, refused):
    out = tmp_path / "out"
    out.mkdir()
    (out / "stats.json").write_text("{}")
    line = refused(1, "stats", parts, "--out", out)
    assert line.startswith(f"{out / 'stats.json'}: already exists")
    assert "lies in" in refused(2, "stats", parts, "--out", parts / "out")
    assert os.listdir(out) == ["stats.json"]


def test_a_folder_without_classes(tmp_path, capsys, refused):
    assert refused(1, "stats", tmp_path).endswith("a folder without images")
    make_photos(tmp_path, cat=3)
    status, printed, _ = call(capsys, "stats", tmp_path / "cat", "--workers", "0")
    assert status == 0
    assert "(no class)" in printed
    assert "train from scratch" not in printed


def test_shards(parts, tmp_path):
    write_shards(str(parts), str(tmp_path / "shards"), 10**6)
    found, of_folder = describe_data(tmp_path / "shards", "webdataset"), describe_data(parts)
    for key in ("classes", "pixels", "sizes", "odd"):
        assert found[key] == of_folder[key]
    assert "--data.source webdataset" in found["command"]


def test_more_than_8_bits_of_any_format_are_said(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5\n40 40\n65535\n" + bytes(range(200)) * 16)
    found = measure_image(path)
    assert found.mode == "I, 16 bits" and "deep" in found.odd


def test_lab_is_in_colour(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("LAB", (40, 40), (120, 100, 200)).save(tmp_path / name / "a.tif")
    assert not any("in gray" in line for line in describe_data(tmp_path)["odd"])
    Image.new("L", (40, 40)).save(tmp_path / "a/b.png")
    assert "mixed: 1 of 3 images in gray, 2 in colour" in describe_data(tmp_path)["odd"]
