"""`spanets eval` measures exported classifiers as it does their checkpoints."""

import json

import pytest
import timm

import spanets_cli
from spanets.deploy.export import export_model, load_source
from spanets_runtime.onnx import OnnxFile

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", params=["float32", pytest.param("int8", marks=pytest.mark.slow)])
def exported(request, tmp_path_factory, small_run, photos) -> tuple[str, str]:
    """A number format, and a file of the small run in it, of one image of 32²."""
    path = str(tmp_path_factory.mktemp("exported") / "m.onnx")
    words = ["export", str(small_run / "last.ckpt"), "--static", "--out", path]
    more = ["--dtype", "int8", "--calibration", str(photos)] if request.param == "int8" else []
    assert spanets_cli.main([*words, *more]) == 0
    return request.param, path


def test_metrics_are_those_of_the_checkpoint(exported, small_run, photos, capsys):
    dtype, path = exported
    results = []
    for source in (str(small_run / "last.ckpt"), path):
        words = ["eval", source, "--data", str(photos), "--workers", "0", "--batch", "5", "--json"]
        assert spanets_cli.main(words) == 0
        results.append(json.loads(capsys.readouterr().out))
    own, ours = results
    assert ours["checkpoint"] == path
    assert ours["images"] == own["images"] == 16
    assert ours["classes"] == own["classes"]
    if dtype == "float32":
        assert ours["confusion"] == own["confusion"]
        assert ours["metrics"]["loss"] == pytest.approx(own["metrics"]["loss"], rel=1e-4)
    else:
        assert ours["metrics"]["loss"] == pytest.approx(own["metrics"]["loss"], rel=0.1)
        assert ours["metrics"]["loss"] != own["metrics"]["loss"]
    assert spanets_cli.main(["eval", path, "--data", str(photos), "--workers", "0"]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_an_exported_file_has_no_images_of_its_own(exported, refused):
    _, path = exported
    line = refused(2, "eval", path)
    assert line == f"{path} does not tell its test images; name a folder with --data"


@pytest.mark.slow  # exports for free sizes
def test_free_sizes_take_whole_batches(tmp_path, photos, small_run, capsys, monkeypatch):
    told = load_source(str(small_run / "last.ckpt"))[1]
    told["preprocessing"]["input_size"] = [3, 64, 64]
    path = tmp_path / "m.onnx"
    model = timm.create_model("spanet_nano", num_classes=2, depths=(1, 1, 1, 1)).eval()
    export_model(model, path, 64, metadata=told)
    batches = []
    run = OnnxFile.run
    monkeypatch.setattr(OnnxFile, "run", lambda self, x: batches.append(len(x)) or run(self, x))
    words = ["eval", str(path), "--data", str(photos), "--workers", "0", "--batch", "7", "--json"]
    assert spanets_cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 16
    assert batches == [7, 7, 2]


@pytest.mark.slow
def test_files_that_tell_no_classes(tmp_path, photos, refused):
    path = tmp_path / "m.onnx"
    model, told, _ = load_source("test_resnet")
    export_model(model, path, told["preprocessing"]["input_size"][-1], dynamic=False, metadata=told)
    line = refused(1, "eval", path, "--data", photos)
    assert line.startswith("the model has no class 'cat'; it has 0, 1, 2, ")


@pytest.mark.slow
def test_exported_detectors_are_refused(tmp_path, photos, refused):
    path = tmp_path / "m.onnx"
    told = {"task": "detection", "preprocessing": {}}
    model = timm.create_model("test_resnet").eval()
    export_model(model, path, 64, dynamic=False, metadata=told)
    line = refused(2, "eval", path, "--data", photos)
    assert line.startswith(f"{path} is for detection; of exported files eval takes classifiers")


@pytest.mark.parametrize("name", ["missing.onnx", "noise.onnx"])
def test_files_that_cannot_be_read(name, tmp_path, photos, refused):
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    line = refused(1, "eval", tmp_path / name, "--data", photos)
    assert line.startswith((f"{tmp_path / name}: not a", f"{tmp_path / name}: no "))
