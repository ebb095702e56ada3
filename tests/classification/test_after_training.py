"""`spanets eval --errors`, `--calibrate`, `--precision`, `--tta`, and what `predict` does then."""

import csv
import json
import re
import shutil

import pytest
import torch
from pages import check_page
from small_runs import call, make_photos

from spanets.checkpoint import read_own
from spanets.classification.answers import Answers
from spanets.classification.calibration import store
from spanets.classification.errors import HEADER, most_confused
from spanets.training.mistakes import name_images


@pytest.fixture
def run(small_run, tmp_path):
    """A copy of the small run, whose checkpoint may be changed."""
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


def evaluate(capsys, *words):
    status, printed, _ = call(capsys, "eval", *words, "--workers", "0", "--json")
    assert status == 0
    return json.loads(printed)


def test_the_page_of_mistakes(small_run, tmp_path, capsys):
    odd = "<b>&cat"
    photos = make_photos(tmp_path / "photos", cat=5, dog=5)
    (photos / "cat/0.png").rename(photos / f"cat/{odd}.png")
    out = tmp_path / "out"
    words = (small_run / "last.ckpt", "--data", photos, "--errors", out)
    found = evaluate(capsys, *words)
    assert f"{odd}.png" in check_page(out / "errors.html")

    rows = list(csv.DictReader((out / "answers.csv").open(newline="")))
    assert tuple(rows[0]) == HEADER
    assert {row["path"] for row in rows} == {
        p.relative_to(photos).as_posix() for p in photos.rglob("*.png")
    }
    assert all(row["path"].startswith(row["truth"] + "/") for row in rows)
    wrong = sum(row["truth"] != row["predicted"] for row in rows)
    assert found["errors"]["wrong"] == wrong
    assert wrong == round(10 * (1 - found["metrics"]["accuracy"]))
    assert (out / "reliability.png").is_file()
    evaluate(capsys, *words)  # its own files are replaced


def test_errors_do_not_replace_other_files(small_run, tmp_path, refused):
    (tmp_path / "errors.html").write_text("mine")
    line = refused(1, "eval", small_run / "last.ckpt", "--errors", tmp_path)
    assert line.startswith(f"{tmp_path / 'errors.html'}: already exists")
    line = refused(1, "eval", small_run / "last.ckpt", "--errors", tmp_path / "errors.html")
    assert line.endswith("is a file; name a folder")


def test_calibrate_then_predict(run, photos, tmp_path, capsys, refused, monkeypatch):
    # Two epochs may leave every validation image right or wrong, where no temperature fits.
    monkeypatch.setattr("spanets.classification.calibration.fit_temperature", lambda *_: 2.0)
    checkpoint, image = run / "last.ckpt", photos / "cat/0.png"
    assert "has no temperature" in refused(2, "predict", checkpoint, image, "--calibrated")
    before = torch.load(checkpoint, weights_only=True)
    found = evaluate(capsys, checkpoint, "--calibrate")
    assert found["calibration"]["temperature"] == 2
    assert found["calibration"]["ece_before"] == pytest.approx(found["metrics"]["ece"])
    assert found["calibration"]["ece_after"] == pytest.approx(found["metrics"]["ece_calibrated"])

    after = torch.load(checkpoint, weights_only=True)
    assert after["spanets"].pop("calibration") == found["calibration"]
    before["spanets"].pop("calibration")
    assert after["spanets"] == before["spanets"]
    assert after.keys() == before.keys()
    for key, value in before["state_dict"].items():
        assert torch.equal(value, after["state_dict"][key])

    shown = {}
    for word in ("--json", "--calibrated"):
        status, printed, _ = call(capsys, "predict", checkpoint, image, "--json", word)
        assert status == 0
        shown[word] = json.loads(printed)[0]["predictions"]
    raw, calibrated = shown["--json"], shown["--calibrated"]
    assert [row["label"] for row in raw] == [row["label"] for row in calibrated]
    p, q = raw[0]["probability"], calibrated[0]["probability"]
    assert (q / (1 - q)) ** 2 == pytest.approx(p / (1 - p), rel=1e-5)
    assert "leave one out" in refused(2, "predict", checkpoint, image, "--calibrated", "--tta")


def test_a_damaged_temperature(run, photos, refused):
    store(run / "last.ckpt", {"temperature": "hot"})
    line = refused(1, "predict", run / "last.ckpt", photos / "cat/0.png", "--calibrated")
    assert "damaged, its temperature is 'hot'" in line


def test_checkpoints_without_calibration_are_read(run):
    content = torch.load(run / "last.ckpt", weights_only=True)
    content["spanets"].pop("calibration")
    torch.save(content, run / "last.ckpt")
    assert read_own(run / "last.ckpt")[0].calibration == {}


def test_thresholds(run, photos, capsys):
    found = evaluate(capsys, run / "last.ckpt", "--precision", "0.4")
    assert [row["goal"] for row in found["thresholds"]] == ["f1", "precision 0.4"]
    assert all(row["images"] == 4 for row in found["thresholds"])
    _, printed, _ = call(capsys, "eval", run / "last.ckpt", "--workers", "0")
    assert re.search(r"threshold of dog for best F1: 0\.\d{4} \(precision", printed)
    assert "thresholds" not in evaluate(capsys, run / "last.ckpt", "--data", photos)


def test_mirror_images(run, photos, capsys):
    found = evaluate(capsys, run / "last.ckpt", "--tta")
    assert found["tta"] == "probabilities averaged over 2 views: each image and its mirror image"
    status, _, said = call(capsys, "predict", run / "last.ckpt", photos / "cat/0.png", "--tta")
    assert status == 0
    assert said == found["tta"] + "\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--calibrate", "--tta"], "the temperature is fitted without --tta; leave one out"),
        (["--calibrate", "--data", "PHOTOS"], "validation images; leave out --data"),
        (["--precision", "0.5", "--data", "PHOTOS"], "validation images; leave out --data"),
        (["--precision", "1.5"], "argument --precision: 1.5 is no number from 0 to 1"),
    ],
)
def test_options_that_do_not_go_together(words, said, small_run, photos, refused):
    words = [photos if word == "PHOTOS" else word for word in words]
    assert said in refused(2, "eval", small_run / "last.ckpt", *words)


def test_calibrate_outside_the_run_folder(small_run, tmp_path, refused):
    shutil.copy(small_run / "last.ckpt", tmp_path / "a.ckpt")
    line = refused(2, "eval", tmp_path / "a.ckpt", "--calibrate")
    assert line.endswith("is elsewhere; add --trust-recipe to allow it")


def test_confusions_and_names(tmp_path):
    answers = Answers()
    answers.truth = torch.tensor([0, 0, 1, 2, 2, 2]).numpy()
    answers.predicted = torch.tensor([1, 1, 1, 0, 0, 0]).numpy()
    assert most_confused(answers, 3) == [(2, 0, 3), (0, 1, 2)]
    images = [tmp_path / "a/1.png", tmp_path / "b/2.png"]
    assert name_images(images, None) == ["a/1.png", "b/2.png"]
    assert name_images(images, str(tmp_path)) == ["a/1.png", "b/2.png"]
