"""A run on coloured squares: every command knows several labels an image."""

import json
import shutil

import pytest
from pages import check_page
from small_runs import SMALL, call, call_without_torch
from squares import draw_square, make_tags

import spanets_cli
from spanets.checkpoint import read_own, store_calibration

KEYS = {
    **SMALL,
    "model.pretrained": "false",
    "data.scale": "0.9,1",
    "optim.layer_decay": "null",
    "optim.batch_size": 8,
    "optim.lr": 3e-3,
    "trainer.epochs": 6,
    "trainer.patience": "null",
}


def words(keys) -> list[str]:
    return [word for key, value in keys.items() for word in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_tags(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, table):
    """The folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "tags"
    command = ["train", "multilabel", "--data.root", str(table), *words(KEYS), "--out", str(out)]
    assert spanets_cli.main(command) == 0
    return out


def predict(capsys, model, *images):
    status, printed, _ = call(capsys, "predict", model, *images, "--json")
    assert status == 0
    return json.loads(printed)


def test_it_learns_and_chooses_thresholds(run):
    results = json.loads((run / "results.json").read_text())
    assert results["metrics"]["map"] > 0.9
    assert results["score"] == "map"
    for name in ("last.ckpt", "best.ckpt"):
        info, _ = read_own(run / name)
        assert info.task == "multilabel"
        assert info.classes == ["blue", "green", "red"]
        assert len(info.calibration["thresholds"]) == 3


def test_the_page(run):
    text = check_page(run / "report.html")
    assert "label images AP precision recall f1 threshold" in text
    assert "right means that all labels are right" in text
    assert "Relative log amplitude" in text


def test_predictions_are_sorted_and_marked(run, table, capsys):
    (found,) = predict(capsys, run / "last.ckpt", table.parent / "3.png")
    rows = found["predictions"]
    assert [set(row) for row in rows] == [{"label", "probability", "chosen"}] * 3
    assert rows == sorted(rows, key=lambda row: -row["probability"])
    assert {row["label"] for row in rows if row["chosen"]} == {"red", "green"}
    _, line, _ = call(capsys, "predict", run / "last.ckpt", table.parent / "3.png", "--top", 1)
    assert "red" in line and "green" in line and "blue" not in line


def test_the_exported_file_agrees(run, table, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    path, images = tmp_path / "tags.onnx", [table.parent / f"{i}.png" for i in (0, 3, 7)]
    assert call(capsys, "export", run / "last.ckpt", "--static", "--out", path)[0] == 0
    ours = predict(capsys, run / "last.ckpt", *images)
    status, printed, _ = call_without_torch("predict", path, *images, "--json")
    assert status == 0
    for one, other in zip(ours, json.loads(printed), strict=True):
        for a, b in zip(one["predictions"], other["predictions"], strict=True):
            assert (a["label"], a["chosen"]) == (b["label"], b["chosen"])
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
    words = ("--data", table, "--workers", 0, "--json")
    scores = []
    for model in (run / "last.ckpt", path):
        status, printed, _ = call(capsys, "eval", model, *words)
        assert status == 0
        scores.append(json.loads(printed)["labels"])
    for name, row in scores[0].items():
        assert row == pytest.approx(scores[1][name], abs=1e-4)


def test_a_pushed_folder_keeps_task_and_thresholds(run, table, tmp_path, capsys):
    assert call(capsys, "push", run / "last.ckpt", "--to", tmp_path / "pushed")[0] == 0
    images = [table.parent / f"{i}.png" for i in (0, 3)]
    ours, theirs = (
        predict(capsys, model, *images) for model in (run / "last.ckpt", tmp_path / "pushed")
    )
    assert ours == theirs
    card = (tmp_path / "pushed/README.md").read_text()
    assert "sigmoid()" in card and "softmax" not in card


def test_explain(run, table, tmp_path, capsys):
    image = table.parent / "3.png"
    command = ("explain", run / "last.ckpt", image, "--site", "layer3", "--out", tmp_path)
    status, printed, said = call(capsys, *command, "--target", "red")
    assert status == 0, said
    assert printed.strip() == str(tmp_path / "explained.png")


def test_eval_on_the_runs_own_images(run, capsys):
    status, printed, said = call(capsys, "eval", run / "last.ckpt", "--workers", 0)
    assert status == 0
    assert "the thresholds were chosen on these validation images" in said
    assert "mAP" in printed and "threshold" in printed


def test_eval_on_class_folders(run, tmp_path, capsys):
    for colour in ("red", "blue"):
        (tmp_path / colour).mkdir()
        draw_square(("red", "blue"), 0).save(tmp_path / colour / "both.png")
        draw_square((colour,), 1).save(tmp_path / colour / "one.png")
    command = ("eval", run / "last.ckpt", "--data", tmp_path, "--workers", 0, "--json")
    status, printed, said = call(capsys, *command)
    assert status == 0, said
    assert "3 images, of which 1 stand in several class folders (0 repeated as links, 1" in said
    counts = {name: row["images"] for name, row in json.loads(printed)["labels"].items()}
    assert counts == {"blue": 2, "green": 0, "red": 2}
    (tmp_path / "pink").mkdir()
    draw_square((), 2).save(tmp_path / "pink/1.png")
    status, _, said = call(capsys, *command)
    assert status == 1
    assert "the model has no class 'pink'" in said


def test_thresholds_are_chosen_again(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = read_own(folder / "last.ckpt")[0].calibration
    store_calibration(folder / "last.ckpt", {})
    _, printed, _ = call(capsys, "eval", folder / "last.ckpt", "--workers", 0)
    assert "thresholds are 0.5: none were chosen" in printed
    command = ("eval", folder / "last.ckpt", "--thresholds", "--workers", 0)
    status, _, said = call(capsys, *command)
    assert status == 0
    assert "chosen for the best F1 on 16 validation images, are now in it" in said
    after = read_own(folder / "last.ckpt")[0].calibration
    assert after["thresholds"] == pytest.approx(before["thresholds"], abs=1e-5)


def test_damaged_thresholds(run, table, tmp_path, refused):
    path = shutil.copy(run / "last.ckpt", tmp_path / "last.ckpt")
    store_calibration(tmp_path / "last.ckpt", {"thresholds": [0.5, 2]})
    line = refused(1, "predict", path, table.parent / "3.png")
    assert line.endswith("damaged, its thresholds are not 3 numbers from 0 to 1")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"optim.pos_weight": "[1, 2]"}, "optim.pos_weight has 2 numbers, must have one for each"),
        ({"optim.loss": "asymmetric", "optim.label_smoothing": 0.1}, "optim.label_smoothing is"),
        ({"data.separator": "|", "data.label_columns": "[a]"}, "data.separator is for one column"),
        ({"trainer.metric": "accuracy"}, "trainer.metric is 'accuracy', allowed: map, f1_micro"),
        ({"data.shuffle_shards": 2}, "data.shuffle_shards is for shards"),
    ],
)
def test_keys_that_cannot_be_used(table, tmp_path, capsys, keys, expected):
    command = ["train", "multilabel", "--data.root", table, *words({**KEYS, **keys})]
    status, _, said = call(capsys, *command, "--out", tmp_path / "run")
    assert status == 2
    assert expected in said.splitlines()[-1]


def test_options_of_other_tasks(run, table, refused):
    line = refused(2, "predict", run / "last.ckpt", table.parent / "3.png", "--calibrated")
    assert line.startswith("--calibrated is for classification")
    line = refused(2, "eval", run / "last.ckpt", "--thresholds", "--data", table)
    assert line.startswith("--thresholds chooses on the run's own validation images")


def test_the_asymmetric_loss_trains(table, tmp_path, capsys):
    keys = {**KEYS, "optim.loss": "asymmetric", "optim.pos_weight": "balanced"}
    keys |= {"trainer.epochs": 1, "trainer.metric": "f1_macro"}
    command = ["train", "multilabel", "--data.root", table, *words(keys)]
    status, printed, said = call(capsys, *command, "--out", tmp_path / "run")
    assert status == 0, said
    assert "weights of the images with a label: blue 1, green 1, red 1" in said
    assert "validation f1_macro" in printed
