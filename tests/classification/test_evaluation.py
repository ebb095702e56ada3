"""`spanets eval`: what it measures, and what it says of data that does not fit."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from small_runs import call

# ---- eval


def test_eval(small_run, photos, capsys):
    results = json.loads((small_run / "results.json").read_text())
    checkpoint = small_run / "last.ckpt"
    status, printed, _ = call(capsys, "eval", checkpoint, "--json", "--workers", "0")
    assert status == 0
    found = json.loads(printed)
    assert found["data"] == "val"
    assert found["images"] == 4
    assert found["confusion"] == results["confusion"]
    assert found["metrics"] == pytest.approx(results["metrics"])

    status, printed, _ = call(capsys, "eval", checkpoint, "--data", photos, "--workers", "0")
    assert status == 0
    assert printed.startswith(f"{checkpoint} on {photos} (16 images)\n")
    assert re.search(r"\n  recall of cat: [01]\.\d{3} \(8 images\)\n", printed)


def test_eval_with_data_that_does_not_fit(small_run, tmp_path, photos, refused):
    checkpoint = small_run / "last.ckpt"
    assert refused(1, "eval", checkpoint, "--data", tmp_path / "none").endswith("no such folder")
    for name in ("cat", "dgo"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "pets" / name / "0.png")
    line = refused(1, "eval", checkpoint, "--data", tmp_path / "pets")
    assert line == "the model has no class 'dgo'; did you mean 'dog'?"
    (tmp_path / "pets/dgo").rename(tmp_path / "pets/zebra")
    line = refused(1, "eval", checkpoint, "--data", tmp_path / "pets")
    assert line == "the model has no class 'zebra'; it has cat, dog"


def save_in_run(content: dict, folder: Path) -> None:
    """Saves a checkpoint beside the recipe of its run."""
    torch.save(content, folder / "a.ckpt")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content["spanets"]["recipe"]))


def test_eval_when_its_own_images_are_gone(small_run, tmp_path, refused):
    content = torch.load(small_run / "last.ckpt", weights_only=True)
    content["spanets"]["recipe"]["data"]["root"] = "gone"
    save_in_run(content, tmp_path)
    line = refused(1, "eval", tmp_path / "a.ckpt")
    assert line == "gone: no such folder; or name a folder with --data"


@pytest.fixture
def parted(small_run, photos, tmp_path) -> Path:
    """The small run's checkpoint, as if made of train/ and val/, the latter with cats alone."""
    for folder in ("train/cat", "train/dog", "val/cat"):
        (tmp_path / "parted" / folder).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(photos / folder.split("/")[1], tmp_path / "parted" / folder)
    content = torch.load(small_run / "last.ckpt", weights_only=True)
    content["spanets"]["recipe"]["data"]["root"] = str(tmp_path / "parted")
    save_in_run(content, tmp_path)
    return tmp_path


def test_undefined_metrics_are_null(parted, capsys):
    words = ["eval", parted / "a.ckpt", "--workers", "0"]
    status, printed, said = call(capsys, *words, "--json")
    assert (status, said) == (0, "")
    found = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["data"] == "val"
    assert found["metrics"]["auroc"] is None
    assert found["confusion"][1] == [0, 0]

    _, printed, _ = call(capsys, *words)
    assert re.search(r"auroc +undefined on these images", printed)
    assert "recall of dog: undefined (0 images)" in printed


def test_test_images_are_measured_where_there_are_some(parted, photos, capsys):
    shutil.copytree(photos / "dog", parted / "parted/test/dog")
    _, printed, _ = call(capsys, "eval", parted / "a.ckpt", "--workers", "0", "--json")
    found = json.loads(printed)
    assert found["data"] == "test"
    assert found["confusion"][0] == [0, 0]
    assert sum(found["confusion"][1]) == found["images"] == 8


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_files_that_are_no_checkpoints(command, photos, tmp_path, refused):
    words = [photos / "cat/0.png"] if command == "predict" else []
    (tmp_path / "text.ckpt").write_text("text")
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    assert refused(1, command, tmp_path / "none.ckpt", *words).endswith("none.ckpt: no such file")
    assert "neither a PyTorch nor" in refused(1, command, tmp_path / "text.ckpt", *words)
    assert "names neither its model" in refused(1, command, tmp_path / "bare.ckpt", *words)
