"""Class names and folders of bytes that are no text, of formulas, of any script: numbers first."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from small_runs import call, make_photos

from spanets.recipe import load_recipe
from spanets.training.engine import train
from spanets.training.report import draw_pictures
from spanets_runtime.errors import UserError

NAMES = ["$\\frac$", "$_$", "caf\udce9", "\u732b", "\U0001f600_\x1b[31mx"]


@pytest.fixture(scope="module")
def odd_run(small_recipe, tmp_path_factory) -> Path:
    """A finished run on a folder that is named by bytes, as one of its classes is."""
    folder = tmp_path_factory.mktemp("odd")
    root = make_photos(folder / os.fsdecode(b"d\xe9"), size=32, **dict.fromkeys(NAMES, 4))
    train(load_recipe(small_recipe, ["--data.root", str(root)]), folder / "run")
    return folder / "run"


def test_a_run_ends_with_its_numbers_and_pictures(odd_run):
    results = json.loads((odd_run / "results.json").read_text("ascii"))
    assert results["classes"] == NAMES
    assert results["metrics"]["accuracy"] is not None
    assert list(results["pictures"]) == ["learning_curve", "confusion_matrix"]
    for path in results["pictures"].values():
        assert min(Image.open(path).size) > 300
    assert list((odd_run / "tensorboard").iterdir())


def test_its_files_are_text_and_hold_the_bytes(odd_run):
    recipe = yaml.safe_load((odd_run / "recipe.yaml").read_text("ascii"))
    assert os.fsencode(recipe["data"]["root"]).endswith(b"/d\xe9")
    assert load_recipe(str(odd_run / "recipe.yaml")).data.root == recipe["data"]["root"]
    content = torch.load(odd_run / "last.ckpt", weights_only=True)
    assert content["spanets"]["classes"] == NAMES
    for name in ("environment.json", "metrics.csv"):
        (odd_run / name).read_text("ascii")


def test_it_is_resumed_evaluated_and_used(odd_run, tmp_path, capsys):
    out = shutil.copytree(odd_run, tmp_path / "run")
    assert call(capsys, "train", out / "recipe.yaml", "--out", out, "--resume")[0] == 0
    status, printed, _ = call(capsys, "eval", out / "last.ckpt", "--json", "--workers", 0)
    assert status == 0
    assert json.loads(printed)["classes"] == NAMES
    root = Path(load_recipe(str(out / "recipe.yaml")).data.root)
    image = next(root.glob("caf*/0.png"))
    status, printed, _ = call(capsys, "predict", out / "last.ckpt", image, "--json")
    assert status == 0
    (row,) = json.loads(printed)
    assert row["image"] == str(image)
    assert {found["label"] for found in row["predictions"]} == set(NAMES)


@pytest.mark.parametrize("error", [ValueError("no\nglyph"), MemoryError(), UserError("disk full")])
def test_a_picture_that_fails_costs_a_line(error, tmp_path, capsys):
    def fail(path: Path) -> None:
        raise error

    drawn = draw_pictures({"a": fail, "b": lambda path: path.touch(), "c": fail}, tmp_path)
    assert drawn == {"b": str(tmp_path / "b.png")}
    lines = capsys.readouterr().err.splitlines()
    reason = {"ValueError": "no", "MemoryError": "MemoryError", "UserError": "disk full"}
    expected = f"not drawn ({reason[type(error).__name__]})"
    assert lines == [f"spanets: warning: {tmp_path / n}.png: {expected}" for n in "ac"]


def test_numbers_are_written_before_the_pictures(small_recipe, tmp_path, monkeypatch):
    def stop(*_, **__):
        assert json.loads((tmp_path / "run/results.json").read_text())["metrics"]
        raise KeyboardInterrupt

    monkeypatch.setattr("spanets.training.report.plot_curves", stop)
    with pytest.raises(UserError, match="stopped; go on with"):
        train(load_recipe(small_recipe), tmp_path / "run")
    assert json.loads((tmp_path / "run/results.json").read_text())["pictures"] == {}
