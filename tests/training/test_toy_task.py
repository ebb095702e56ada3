"""A task that another package brings: all that commands and functions do with its checkpoints."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from small_runs import SMALL, call

from spanets import tasks
from spanets.recipe import load_recipe
from spanets.runs.file_names import LAST
from spanets.sources import open_source
from spanets.tasks import list_tasks, load_task
from spanets.training.engine import train
from spanets.training.options import EvalOptions, PredictOptions
from spanets.training.using import evaluate, make_predictor
from spanets_runtime.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[ModuleType]:
    """The file, whose task other tests do not see."""
    module = import_module("training.toy_task")
    tasks.register_task(module.BrightnessTask)
    yield module
    del tasks._REGISTERED["brightness"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory, photos) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.yaml"
    small = {key: value for key, value in SMALL.items() if key != "data.image_size"}
    keys = {"task": "brightness", **small, "data.side": 32, "data.root": photos}
    path.write_text("\n".join(f"{key}: {value}" for key, value in keys.items()))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, recipe_file) -> Path:
    out = tmp_path_factory.mktemp("runs") / "toy"
    train(load_recipe(str(recipe_file)), out)
    return out


@pytest.fixture
def image(photos) -> Path:
    return photos / "cat" / "0.png"


def test_the_file_is_short(toy):
    assert len(Path(toy.__file__).read_text().splitlines()) < 150


def test_it_is_listed():
    assert "brightness" in list_tasks()
    assert load_task("brightness").recipe_type().task == "brightness"


def test_functions_use_its_checkpoints(run, image, photos):
    source = open_source(run / LAST)
    assert source.info.task == "brightness"
    assert source.info.preprocessing == {"input_size": [3, 32, 32]}
    own = evaluate(source, EvalOptions())
    assert own["images"] == 4
    assert evaluate(source, EvalOptions(root=str(photos / "cat")))["images"] == 2
    (found,) = make_predictor(source, PredictOptions())([image])
    assert found.error is None
    assert found.brightness == pytest.approx(0.4, abs=1)


def test_commands_use_its_checkpoints(run, image, photos, capsys, tmp_path):
    status, printed, _ = call(capsys, "eval", run / LAST, "--json")
    assert status == 0
    assert json.loads(printed)["metrics"]["mean_error"] >= 0
    assert call(capsys, "eval", run / LAST)[1].startswith(f"{run / LAST} on ")
    (tmp_path / "none.png").write_text("no image")
    status, printed, said = call(capsys, "predict", run / LAST, image, tmp_path / "none.png")
    assert status == 1
    assert printed.startswith(f"{image}: ")
    assert "none.png" in said


def test_a_command_resumes_a_run_as_if_never_stopped(toy, run, recipe_file, tmp_path, capsys):
    recipe, out = load_recipe(str(recipe_file)), tmp_path / "resumed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.BrightnessModule, "on_train_epoch_end", _stop_after_one)
        with pytest.raises(UserError, match="stopped by the test"):
            train(recipe, out)
    assert call(capsys, "train", recipe_file, "--out", out, "--resume")[0] == 0
    assert (out / "learning_curve.png").is_file()
    results = [json.loads((folder / "results.json").read_text()) for folder in (run, out)]
    assert results[0]["metrics"] == results[1]["metrics"]


def _stop_after_one(module) -> None:
    if module.current_epoch == 1:
        raise UserError("stopped by the test")


def test_its_models_are_exported_and_timed(run, image, refused, capsys, tmp_path):
    pytest.importorskip("onnxruntime")
    exported = tmp_path / "toy.onnx"
    words = ["export", run / LAST, "--size", 32, "--static", "--out", exported]
    status, _, said = call(capsys, *words)
    assert status == 0, said
    line = refused(2, "predict", exported, image)
    assert line.startswith(f"{exported} is exported for brightness, whose predictions need more")
    status, printed, said = call(capsys, "bench", run / LAST, "--size", 32, "--rounds", 1, "--json")
    assert status == 0, said
    assert json.loads(printed)["rows"][0]["latency_ms"] > 0
    line = refused(2, "bench", run / LAST, "--size", 32, "--train")
    assert "is for brightness" in line


def test_options_of_other_tasks_are_refused(run, image, refused, photos):
    where = f"and {run / LAST} is for brightness"
    line = refused(2, "predict", run / LAST, image, "--out", "masks")
    assert line == f"--out is for detection and segmentation, {where}"
    line = refused(2, "eval", run / LAST, "--data", photos, "--layout", "imagenet")
    assert line == f"--layout is for classification, {where}"
    line = refused(1, "explain", run / LAST, image, "--out", "maps")
    assert "is for brightness; this command takes classifiers" in line
    assert "is for brightness" in refused(1, "push", run / LAST, "--to", "folder")
