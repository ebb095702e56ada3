"""Classifiers of many channels: trained, measured, predicted with, exported and published."""

import json

import numpy as np
import pytest
import timm
import torch
from small_runs import SMALL
from timm.models import adapt_input_conv

import spanets
import spanets_cli
from spanets.classification.predict import Predictor
from spanets.classification.recipe import ClassificationRecipe
from spanets.classification.task import ClassificationTask
from spanets.recipe import parse_recipe
from spanets.weights import WeightsError, load_weights
from spanets_runtime.errors import UsageError
from spanets_runtime.onnx import OnnxPredictor

tifffile = pytest.importorskip("tifffile")

CHANNELS = 5


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two classes, which differ in the fourth channel alone."""
    noise, root = np.random.default_rng(0), tmp_path_factory.mktemp("scenes")
    for label, name in enumerate(("low", "high")):
        (root / name).mkdir()
        for i in range(8):
            pixels = noise.integers(0, 4000, (40, 36, CHANNELS), np.uint16)
            pixels[..., 3] += 4000 * label
            tifffile.imwrite(root / name / f"{i}.tif", pixels, photometric="minisblack")
    return root


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    recipe = {
        **SMALL,
        "data.root": scenes,
        "data.channels": CHANNELS,
        "data.value_range": "0,8000",
        "data.mean": "0.25",
        "data.std": "0.15,0.15,0.15,0.3,0.15",
        "data.color_jitter": 0.4,
        "optim.lr": 0.003,
        "trainer.epochs": 4,
    }
    words = [word for key, value in recipe.items() for word in (f"--{key}", str(value))]
    assert spanets_cli.main(["train", "photos", *words, "--out", str(out / "r")]) == 0
    return out / "r"


def test_run_learns_from_the_fourth_channel(run):
    results = json.loads((run / "results.json").read_text())
    assert results["metrics"]["accuracy"] == 1
    info = spanets.open_source(run / "last.ckpt").info
    assert info.preprocessing["input_size"] == [CHANNELS, 32, 32]
    assert info.preprocessing["value_range"] == [0, 8000]
    assert info.preprocessing["mean"] == [0.25] * CHANNELS
    assert info.model_args["in_chans"] == CHANNELS


def test_commands_take_it(run, scenes, tmp_path, capsys):
    def call(*words):
        status = spanets_cli.main([*map(str, words)])
        return status, capsys.readouterr()

    status, printed = call("eval", run / "last.ckpt", "--data", scenes, "--json")
    assert status == 0
    assert json.loads(printed.out)["metrics"]["accuracy"] > 0.9
    status, _ = call("eval", run / "last.ckpt", "--errors", tmp_path / "errors")
    assert status == 0
    assert "data:image/jpeg" in (tmp_path / "errors" / "errors.html").read_text()
    image = scenes / "low" / "0.tif"
    assert call("explain", run / "last.ckpt", image, "--out", tmp_path, "--site", "layer4")[0] == 0
    assert call("embed", run / "last.ckpt", scenes, "--out", tmp_path / "e.npz")[0] == 0
    words = ["--tile", "32", "--overlap", "0", "--out", tmp_path / "tiles", "--json"]
    status, printed = call("predict", run / "last.ckpt", image, *words)
    assert status == 0
    assert len(json.loads(printed.out)[0]["tiles"]) == 4
    assert (tmp_path / "tiles" / "0-tiles.jpg").is_file()
    np.save(tmp_path / "three.npy", np.zeros((40, 40, 3), np.uint16))
    status, printed = call("predict", run / "last.ckpt", tmp_path / "three.npy")
    assert status == 1
    assert "three.npy: has shape (40, 40, 3), must have 5 channels" in printed.err


def test_exported_file_answers_alike(run, scenes, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    words = ["export", str(run / "last.ckpt"), "--out", str(path), "--static"]
    assert spanets_cli.main(words) == 0
    images = sorted(scenes.rglob("*.tif"))[::5]
    ours, theirs = OnnxPredictor(path)(images), Predictor(run / "last.ckpt", device="cpu")(images)
    for a, b in zip(ours, theirs, strict=True):
        assert dict(a.labels) == pytest.approx(dict(b.labels), abs=1e-4)


def test_published_folder_answers_alike(run, scenes, tmp_path):
    folder = tmp_path / "pushed"
    assert spanets_cli.main(["push", str(run / "last.ckpt"), "--to", str(folder)]) == 0
    image = [scenes / "high" / "1.tif"]
    ours, theirs = (
        next(Predictor(str(p), device="cpu")(image)) for p in (folder, run / "last.ckpt")
    )
    assert dict(ours.labels) == pytest.approx(dict(theirs.labels), abs=1e-6)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)  # timm opens it as well
    assert model.conv1[0].weight.shape[1] == CHANNELS


# ---- weights


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("name", ["spanet_nano", "test_resnet"])
def test_weights_of_three_channels_are_adapted_as_timm_does(name, count):
    weights = timm.create_model(name, num_classes=4).state_dict()
    model = timm.create_model(name, num_classes=4, in_chans=count)
    report = load_weights(model, weights, adapt_channels=True)
    key = "stem.conv.weight" if name == "spanet_nano" else "conv1.0.weight"
    assert torch.equal(model.state_dict()[key], adapt_input_conv(count, weights[key]))
    line = f"1 adapted: {key} (from 3 channels to {count}, by timm's rule)"
    assert (line in str(report)) == (count != 3)


def test_adapting_is_asked_for():
    model = timm.create_model("test_resnet", in_chans=5)
    three, four = (timm.create_model("test_resnet", in_chans=n).state_dict() for n in (3, 4))
    with pytest.raises(WeightsError, match="in_chans=3"):
        load_weights(model, three)
    with pytest.raises(WeightsError, match="in_chans=4"):
        load_weights(model, four, adapt_channels=True)


def test_channels_have_one_source():
    values = {"data.channels": 5, "data.mean": 0.5, "data.std": 0.2, "model.args": {"in_chans": 4}}
    recipe = parse_recipe(values, origin="test")
    assert isinstance(recipe, ClassificationRecipe)
    with pytest.raises(UsageError, match=r"model.args.in_chans is 4, and data.channels is 5"):
        ClassificationTask(recipe).make_info(["a", "b"])
