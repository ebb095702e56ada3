"""What commands print: JSON that is valid whatever the numbers are, and what was left out."""

import json
import math

import pytest
import torch
from PIL import Image
from small_runs import call

from spanets.analysis.study import Options, analyze
from spanets.deploy.quantize import calibration_images
from spanets_cli.output import print_json
from spanets_runtime.preprocessing import Preprocessing


def strictly(text: str):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_null_and_said(capsys, bad):
    value = {"metrics": {"loss": bad, "accuracy": 0.5}, "rows": [1, (bad, 2.5)], "name": "NaN"}
    assert print_json(value) == 1
    printed, said = capsys.readouterr()
    assert strictly(printed) == {
        "metrics": {"loss": None, "accuracy": 0.5},
        "rows": [1, [None, 2.5]],
        "name": "NaN",
    }
    assert said == "spanets: 2 numbers are not finite, printed as null, such as metrics.loss\n"


def test_other_values_are_printed_as_they_are(capsys):
    value = [{"a": 1.5, "b": None, "c": True, "d": "ä"}]
    assert print_json(value) == 0
    printed, said = capsys.readouterr()
    assert strictly(printed) == value
    assert printed.isascii()
    assert said == ""


def test_predicting_a_folder_of_folders(small_run, tmp_path, capsys):
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    status, printed, said = call(capsys, "predict", small_run / "last.ckpt", tmp_path, "--json")
    assert status == 0
    assert [row["image"] for row in strictly(printed)] == [
        str(tmp_path / name) for name in ("a/1.png", "b/1.png")
    ]
    assert said == f"{tmp_path}: 1 file left out, not known as images (1 .txt)\n"


def test_broken_weights(small_run, photos, tmp_path, capsys):
    """NaN in a checkpoint: the images are reported as failed, and the JSON is valid."""
    content = torch.load(small_run / "last.ckpt", weights_only=False)
    for values in content["state_dict"].values():
        if values.is_floating_point():
            values.fill_(math.nan)
    torch.save(content, tmp_path / "broken.ckpt")
    image = photos / "cat/0.png"
    status, printed, said = call(capsys, "predict", tmp_path / "broken.ckpt", image, "--json")
    assert status == 1
    assert strictly(printed) == [{"image": str(image), "predictions": None}]
    assert said == (
        f"spanets: {image}: the model's output is NaN or infinite; its weights may be broken\n"
    )


def test_analysis_and_calibration_count_what_they_leave_out(tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "notes.txt").touch()
    left_out = f"{tmp_path}: 1 file left out, not known as images (1 .txt)"
    unreadable = f"1 of 2 images left out, unreadable, such as {tmp_path}/bad.png: not an image"

    preprocess = Preprocessing(32, 0.9, "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert len(calibration_images(tmp_path, preprocess)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == left_out
    assert second.startswith(unreadable)

    analyze(["test_resnet"], tmp_path, tmp_path / "out", size=32, options=Options(sites="layer1"))
    first, second = capsys.readouterr().err.splitlines()
    assert first == left_out
    assert second.startswith(unreadable)
