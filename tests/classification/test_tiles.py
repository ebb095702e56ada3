"""`spanets predict CLASSIFIER --tile`: a prediction a tile."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from small_runs import call

from spanets_runtime.windows import Tiling


@pytest.fixture
def wide(tmp_path):
    """An image whose left half is red, and the right half green."""
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[:, :100, 0] = pixels[:, 100:, 1] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_tiles_of_an_image(small_run, wide, tmp_path, capsys):
    words = ["predict", small_run / "last.ckpt", wide, "--tile", 60, "--overlap", 10]
    status, printed, _ = call(capsys, *words, "--out", tmp_path / "out", "--json")
    assert status == 0
    (found,) = json.loads(printed)
    assert [tile["x"] for tile in found["tiles"]] == [0, 50, 100, 140]
    assert all((tile["width"], tile["height"]) == (60, 60) for tile in found["tiles"])
    for rank, one in enumerate(found["predictions"]):
        of_tiles = [
            row["probability"]
            for tile in found["tiles"]
            for row in tile["predictions"]
            if row["label"] == one["label"]
        ]
        assert one["probability"] == pytest.approx(np.mean(of_tiles)), rank
    rows = list(csv.DictReader((tmp_path / "out/tiles.csv").open(newline="")))
    assert [row["label"] for row in rows] == [
        tile["predictions"][0]["label"] for tile in found["tiles"]
    ]
    assert Image.open(found["picture"]).size == (200, 60)
    assert call(capsys, *words, "--out", tmp_path / "out")[0] == 0  # its own files are replaced


def test_a_tile_as_large_as_the_image(small_run, wide, capsys):
    shown = []
    for words in ([], ["--tile", 200]):
        _, printed, _ = call(capsys, "predict", small_run / "last.ckpt", wide, "--json", *words)
        shown.append(json.loads(printed)[0]["predictions"])
    assert shown[0] == shown[1]


def test_other_files_are_not_replaced(small_run, wide, tmp_path, refused):
    (tmp_path / "tiles.csv").write_text("mine")
    words = ["predict", small_run / "last.ckpt", wide, "--tile", 60, "--out", tmp_path]
    line = refused(1, *words)
    assert line.startswith(f"{tmp_path / 'tiles.csv'}: already exists")
    assert line.endswith("name another folder with --out")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--overlap", "8"], "--overlap is the overlap of tiles; add --tile SIDE"),
        (["--tile", "64", "--overlap", "40"], "--overlap 40: at most half of --tile 64; lower"),
        (["--tile", "7"], "argument --tile: 7 is no whole number from 32"),
        (["--tta-scales", "1", "1"], "--tta-scales 1 1: a scale is named twice"),
        (["--tta-scales", "9"], "argument --tta-scales: 9 is no scale from 0.25 to 4"),
        (["--out", "here"], "--out is for detection and segmentation, and"),
    ],
)
def test_options_that_do_not_go_together(words, said, small_run, wide, refused):
    assert refused(2, "predict", small_run / "last.ckpt", wide, *words).startswith(said)


@pytest.mark.parametrize("option", [("--tile", "64"), ("--tta-scales", "1", "2")])
def test_exported_files_take_neither(option, wide, refused):
    line = refused(2, "predict", "a.onnx", wide, *option)
    assert (
        line
        == f"{option[0]} takes a checkpoint, and a.onnx is an exported file; use the checkpoint"
    )


@pytest.mark.parametrize("size", [(1, 1), (60, 200), (61, 200), (119, 47), (500, 333)])
def test_cells_divide_the_image(size):
    tiling = Tiling(60, 25)
    seen = np.zeros(size[::-1], int)
    for (left, top, right, bottom), tile in zip(
        tiling.cells(*size), tiling.tiles(*size), strict=True
    ):
        seen[top:bottom, left:right] += 1
        assert tile[0] <= left < right <= tile[2] and tile[1] <= top < bottom <= tile[3]
    assert (seen == 1).all()
