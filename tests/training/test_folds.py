"""Cross-validation: every fold is trained once, and the metrics are summarised."""

import json
import math
import shutil

import pytest
from scipy import stats
from small_runs import SMALL, make_photos

import spanets_cli
from spanets.data.folds import read_folds
from spanets.data.split_list import read_split
from spanets.training.folds import student_quantile, summarise, summarise_folds


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe with a table of sixteen images, a group for every two."""
    root = tmp_path_factory.mktemp("table")
    make_photos(root, cat=8, dog=8)
    rows = [
        f"{name}/{i}.png,{name},g{name}{i // 2},{1 + i}"
        for name in ("cat", "dog")
        for i in range(8)
    ]
    (root / "labels.csv").write_text("\n".join(["path,label,group,weight", *rows]))
    values = {**SMALL, "trainer.epochs": 1, "data.root": root / "labels.csv", "data.folds": 2}
    path = root / "recipe.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in values.items()))
    return str(path)


def test_all_folds_then_resume_and_evaluate(recipe, tmp_path, capsys):
    out = tmp_path / "cv"
    words = ["train", recipe, "--data.fold", "all", "--out", str(out)]
    assert spanets_cli.main(words) == 0
    shown = capsys.readouterr()
    assert "2 folds, each measured on val" in shown.out and "95 % interval" in shown.out
    assert "weighs the images in the training loss" in shown.err
    first = json.loads((out / "folds.json").read_text())
    assert first["metrics"]["accuracy"]["folds"] == 2 and list(first["folds"]) == ["0", "1"]
    folds = read_folds(out)
    for fold in (0, 1):
        parts = read_split(out / f"fold-{fold}").parts
        assert {name for name, part in parts.items() if part == "val"} == {
            name for name, number in zip(folds.names, folds.numbers, strict=True) if number == fold
        }
    # Again: refused; resumed: only the missing fold is trained.
    assert spanets_cli.main(words) == 2
    assert "already holds folds; add --resume" in capsys.readouterr().err
    before = (out / "fold-0" / "last.ckpt").stat().st_mtime_ns
    shutil.rmtree(out / "fold-1")
    assert spanets_cli.main([*words, "--resume"]) == 0
    assert "fold 0 (1 of 2): finished" in capsys.readouterr().err
    assert (out / "fold-0" / "last.ckpt").stat().st_mtime_ns == before
    again = json.loads((out / "folds.json").read_text())
    assert again["metrics"] == first["metrics"]
    assert spanets_cli.main([*words, "--resume", "--data.split_seed", "1"]) == 2
    assert "data.split_seed 0, not 1" in capsys.readouterr().err
    for option in ("--thresholds", "--calibrate"):
        assert spanets_cli.main(["eval", str(out), option]) == 2
        assert f"{option} is for one model" in capsys.readouterr().err
    # The fold's own images, and the whole table.
    checkpoint = str(out / "fold-1" / "last.ckpt")
    assert spanets_cli.main(["eval", checkpoint, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["metrics"]["accuracy"] == first["folds"]["1"]["metrics"]["accuracy"]
    table = recipe.replace("recipe.yaml", "labels.csv")
    assert spanets_cli.main(["eval", checkpoint, "--data", table]) == 0
    assert "8 of the 16 images are those that the model was trained on" in capsys.readouterr().err


def test_summary():
    results = {
        0: {"metrics": {"accuracy": 0.5, "auroc": None}, "images": 4},
        2: {"metrics": {"accuracy": 0.7, "auroc": 1.0}, "images": 4},
    }
    summary = summarise_folds(results)
    assert summary["metrics"]["auroc"] == {
        "mean": 1.0, "deviation": None, "low": None, "high": None, "folds": 1
    }  # fmt: skip
    found = summary["metrics"]["accuracy"]
    low, high = stats.t.interval(0.95, 1, 0.6, stats.sem([0.5, 0.7]))
    assert found["low"] == pytest.approx(low) and found["high"] == pytest.approx(high)
    assert summarise([None, None])["mean"] is None


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30, 999])
def test_quantile_of_student(freedom):
    assert math.isclose(student_quantile(0.975, freedom), stats.t.ppf(0.975, freedom), rel_tol=1e-6)
