"""The scripts that draw the papers' figures run as their users would run them."""

import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

import spanets
from spanets.bench.paper_accuracy import IMAGENET_TOP1
from spanets.checkpoint import ModelInfo, save_torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch):
    """Runs a script with words."""
    pytest.importorskip("matplotlib")

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    return run


def test_spectra_and_amplitude(run, photos, tmp_path):
    words = ["test_convnext", "spanet_nano", "--images", photos, "--count", 2, "--size", 64]
    run("paper_amplitude", *words, "--out", tmp_path / "amplitude")
    run("paper_spectra", *words, "--side", 8, "--out", tmp_path / "spectra")
    assert {path.name for path in tmp_path.glob("*.png")} == {"amplitude.png", "spectra.png"}


def test_contexts(run, tmp_path):
    model = timm.create_model("spanet_nano", num_classes=2)
    values = {"input_size": [3, 64, 64], "crop_pct": 1.0, "interpolation": "bilinear"}
    values |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    info = ModelInfo("spanet_nano", {}, ["a", "b"], values, {}, spanets.__version__)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_torch({"spanets": info.to_dict(), "state_dict": weights}, tmp_path / "a.ckpt")
    run("paper_contexts", tmp_path / "a.ckpt", "--out", tmp_path / "contexts.png")
    with Image.open(tmp_path / "contexts.png") as sheet:
        assert sheet.height < sheet.width < 1000  # four cells, an image and four contexts each


def test_published_accuracies(run, tmp_path):
    run("paper_accuracy", "--out", tmp_path / "accuracy")
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000
    costs = runpy.run_path(str(EXAMPLES / "paper_accuracy.py"))["COSTS"]
    assert {name for family in costs.values() for name in family} == set(IMAGENET_TOP1)


def test_banner(run, tmp_path):
    """The drawn file has the size of the stored one; for λ = 1/2 the filter changes nothing."""
    run("banner_figure", tmp_path / "banner.jpg")
    stored = EXAMPLES.parent / "docs/figures/banner.jpg"
    with Image.open(tmp_path / "banner.jpg") as drawn, Image.open(stored) as committed:
        assert drawn.size == committed.size == (1280, 320)
    assert stored.stat().st_size < 200_000
    split = runpy.run_path(str(EXAMPLES / "banner_figure.py"))["split"]
    picture = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    low, high = split(picture, torch.full((64,), 0.5))
    torch.testing.assert_close(low + high, picture)  # float32's default tolerance


@pytest.mark.parametrize("name", ["ecg_like", "small_volume"])
def test_signals_and_volumes(name, monkeypatch, capsys):
    """One step: a whole run takes half a minute."""
    monkeypatch.setattr(sys, "argv", [name, "--steps", "1"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith("accuracy on 256 new ")


@pytest.mark.slow  # starts a cluster on this machine
@pytest.mark.parametrize("name", ["ray", "spark"])
def test_jobs(name, small_run, photos, tmp_path, monkeypatch):
    """Jobs of Ray and Spark give the rows of the function, in order."""
    pytest.importorskip({"ray": "ray.data", "spark": "pyspark"}[name])
    parquet = pytest.importorskip("pyarrow.parquet")
    words = [name, small_run / "last.ckpt", photos, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    runpy.run_path(str(EXAMPLES / f"{name}_predict.py"), run_name="__main__")
    paths = sorted(map(str, photos.rglob("*.png")))
    files = sorted((tmp_path / "out").rglob("*.parquet"))
    found = [row for file in files for row in parquet.read_table(file).to_pylist()]
    rows = list(spanets.predict_table(small_run / "last.ckpt", paths))
    assert [{**a, **b} for a, b in zip(rows, found, strict=True)] == rows
