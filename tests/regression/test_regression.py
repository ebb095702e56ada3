"""Numbers from images: tables, metrics, and a run whose commands all have the data's units."""

import json
import math

import numpy as np
import pytest
import timm
import torch
from pages import check_page
from small_runs import SMALL, call, call_without_torch
from squares import make_brightness, write_table

import spanets_cli
from spanets.checkpoint import read_own
from spanets.data.run_data import RunData
from spanets.regression.data import make_loaders, read_parts
from spanets.regression.metrics import measure, measure_one, ranks
from spanets.regression.module import value_losses
from spanets.regression.recipe import RegressionData, RegressionOptim, RegressionRecipe
from spanets.regression.scale import Scale, Scaled, fold_scale
from spanets_runtime.errors import UserError

KEYS = {
    **SMALL,
    "model.pretrained": "false",
    "data.scale": "0.9,1",
    "data.targets": "[brightness, double]",
    "optim.layer_decay": "null",
    "optim.batch_size": 8,
    "optim.lr": 3e-3,
    "trainer.epochs": 8,
    "trainer.patience": "null",
}


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learn_and_scipy(seed):
    metrics, stats = pytest.importorskip("sklearn.metrics"), pytest.importorskip("scipy.stats")
    noise = np.random.default_rng(seed)
    true = np.round(noise.normal(50, 10, 40))  # with ties
    predicted = np.round(true + noise.normal(0, 5, 40))
    found = measure_one(predicted, true)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(true, predicted), abs=1e-9)
    squared = metrics.mean_squared_error(true, predicted)
    assert found["rmse"] == pytest.approx(math.sqrt(squared), abs=1e-9)
    assert found["r2"] == pytest.approx(metrics.r2_score(true, predicted), abs=1e-9)
    assert found["spearman"] == pytest.approx(stats.spearmanr(true, predicted)[0], abs=1e-9)
    assert ranks(true).tolist() == stats.rankdata(true).tolist()


@pytest.mark.parametrize("count", [1, 3, 4, 10])
@pytest.mark.parametrize("value", [1.0, 0.1, 1e-9])  # the mean of 0.1, 0.1 and 0.1 is not 0.1
def test_metrics_of_constants_are_undefined(value, count):
    found = measure_one(np.arange(float(count)), np.full(count, value))
    assert math.isnan(found["r2"]) and math.isnan(found["spearman"])


def test_several_numbers_have_no_mean_error():
    values = np.random.default_rng(0).normal(size=(9, 2))
    metrics, each = measure(values, values, ["age", "height"])
    assert metrics == pytest.approx({"r2": 1, "spearman": 1})
    assert set(each) == {"age", "height"}
    assert set(measure(values[:, :1], values[:, :1], ["age"])[0]) == {
        *("mae", "rmse", "r2", "spearman")
    }


@pytest.mark.parametrize(("loss", "expected"), [("mse", 4.5), ("mae", 1.5), ("huber", 1.25)])
def test_losses(loss, expected):
    outputs, targets = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 0.0]])
    found = value_losses(RegressionOptim(loss=loss), outputs, targets)
    assert found.tolist() == [expected]


def test_the_scale_folds_into_the_last_layer():
    model, scale = (
        timm.create_model("test_resnet", num_classes=2).eval(),
        Scale([3.0, -70], [2.0, 9]),
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = Scaled(model, scale)(images)
        assert torch.allclose(fold_scale(model, scale, "x")(images), expected, atol=1e-4)
        assert torch.allclose(
            model(images) * torch.tensor(scale.std) + torch.tensor(scale.mean), expected
        )


def test_standardizing_and_back():
    values = np.random.default_rng(0).normal(1e6, 10, (50, 1))
    scale = Scale.of(values, ["x"], "x")
    standard = scale.standardize(values)
    assert standard.mean() == pytest.approx(0, abs=1e-3)
    assert standard.std() == pytest.approx(1, abs=1e-3)
    assert scale.restore(standard) == pytest.approx(values, abs=1e-4)
    with pytest.raises(UserError, match="x is the same for all training images"):
        Scale.of(np.full((5, 1), 7.0), ["x"], "x")


def test_wrong_cells_are_reported_together(tmp_path):
    path = make_brightness(tmp_path, 8)
    lines = path.read_text().splitlines()
    for row, cell in ((1, ""), (2, "old"), (3, "inf"), (4, "nan"), (5, "3,5"), (6, "1_0")):
        lines[row] = f'{row - 1}.png,"{cell}",1'
    data = RegressionData(root=str(write_table(path, lines)), targets=["brightness"])
    with pytest.raises(UserError) as error:
        read_parts(data)
    message = str(error.value)
    assert "1 cell, 0.png (row 2), is empty in column 'brightness'" in message
    assert "4 cells (1.png (row 3), 3.png (row 5), 4.png (row 6), …) are no number in" in message
    assert "such as 'old'" in message
    assert "1 cell, 2.png (row 4), is infinite in column 'brightness'" in message


def test_a_number_may_be_called_weight(tmp_path):
    path = make_brightness(tmp_path, 16)
    path.write_text(path.read_text().replace("file,brightness", "file,weight"))
    parts = read_parts(RegressionData(root=str(path), targets=["weight"]))
    assert parts["train"].weights is None
    assert parts["train"].classes == ["weight"]


def test_a_split_covers_the_range(tmp_path):
    parts = read_parts(RegressionData(root=str(make_brightness(tmp_path)), targets=["double"]))
    val = np.asarray(parts["val"].targets)[:, 0]
    all_values = np.concatenate([np.asarray(p.targets)[:, 0] for p in parts.values()])
    edges = np.quantile(all_values, [0, 0.25, 0.5, 0.75, 1])
    assert np.histogram(val, edges)[0].min() >= 2


def test_a_resumed_run_keeps_its_scale(tmp_path):
    data = RegressionData(root=str(make_brightness(tmp_path)), targets=["double"], workers=0)
    recipe, head = RegressionRecipe(data=data), {"mean": [5.0], "std": [2.0]}
    _, scale = make_loaders(recipe, 4, 1, RunData(tmp_path / "run", is_new=True, head=head))
    assert scale.to_head() == head


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_brightness(tmp_path_factory.mktemp("bright"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, table):
    """The folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "bright"
    words = [word for key, value in KEYS.items() for word in (f"--{key}", str(value))]
    command = ["train", "regression", "--data.root", str(table), *words, "--out", str(out)]
    assert spanets_cli.main(command) == 0
    return out


def predict(capsys, model, *images):
    status, printed, _ = call(capsys, "predict", model, *images, "--json")
    assert status == 0
    return [found["values"] for found in json.loads(printed)]


def test_it_learns_and_draws(run):
    results = json.loads((run / "results.json").read_text())
    assert results["metrics"]["r2"] > 0.8
    assert set(results["pictures"]) == {"learning_curve", "scatter"}
    info, _ = read_own(run / "last.ckpt")
    assert info.classes == ["brightness", "double"]
    assert info.head["std"][1] == pytest.approx(2 * info.head["std"][0], rel=1e-3)


def test_the_page(run):
    text = check_page(run / "report.html")
    assert "number MAE RMSE R² Spearman" in text
    assert "Across: truth. Up: prediction." in text
    assert "in standard deviations of the training images" in text


def test_predictions_have_the_datas_units(run, table, capsys):
    dark, bright = predict(capsys, run / "best.ckpt", *(table.parent / f"{i}.png" for i in (2, 60)))
    assert 0 < dark["brightness"] < bright["brightness"] < 300
    assert 1000 < dark["double"] < bright["double"] < 1600


def test_the_exported_file_and_the_pushed_folder_agree(run, table, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    images = [table.parent / f"{i}.png" for i in (2, 60)]
    ours = predict(capsys, run / "last.ckpt", *images)
    path, folder = tmp_path / "bright.onnx", tmp_path / "pushed"
    assert call(capsys, "export", run / "last.ckpt", "--static", "--out", path)[0] == 0
    status, printed, _ = call_without_torch("predict", path, *images, "--json")
    assert status == 0
    exported = [found["values"] for found in json.loads(printed)]
    assert call(capsys, "push", run / "last.ckpt", "--to", folder)[0] == 0
    for others in (exported, predict(capsys, folder, *images)):
        for one, other in zip(ours, others, strict=True):
            assert one == pytest.approx(other, rel=1e-4)
    scores = []
    for model in (run / "last.ckpt", path, folder):
        command = ("eval", model, "--data", table, "--workers", 0, "--json")
        status, printed, said = call(capsys, *command)
        assert status == 0, said
        scores.append(json.loads(printed)["values"]["double"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    assert scores[0] == pytest.approx(scores[2], rel=1e-4)


def test_explain(run, table, tmp_path, capsys):
    image = table.parent / "3.png"
    command = ("explain", run / "last.ckpt", image, "--site", "layer3", "--out", tmp_path)
    status, printed, said = call(capsys, *command, "--target", "double")
    assert status == 0, said
    assert printed.strip() == str(tmp_path / "explained.png")


def test_another_table(run, table, tmp_path, refused):
    other = write_table(table.parent / "other.csv", ["file,age", "0.png,3"])
    line = refused(2, "eval", run / "last.ckpt", "--data", other, "--workers", 0)
    assert line.startswith(f"{other}: no column 'brightness', as data.targets says")
    line = refused(2, "train", "regression", "--data.root", table.parent)
    assert "must be a table of images and numbers" in line
