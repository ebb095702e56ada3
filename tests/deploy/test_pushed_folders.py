"""A pushed folder says all that its checkpoint says, but for the places of the run."""

import dataclasses
import json
import re
from typing import get_type_hints

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from spanets.checkpoint import ModelInfo, save_torch
from spanets.classification.calibration import temperature_of
from spanets.deploy.export import load_source
from spanets.deploy.publish import _PLACES, publish
from spanets.sources import open_source
from spanets.tasks import list_tasks, load_task

PREPROCESSING = {
    "input_size": [3, 32, 32],
    "crop_pct": 0.8,
    "interpolation": "bilinear",
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
}
FITTED = {
    "classification": {"calibration": {"temperature": 1.7, "images": 9}},
    "multilabel": {"calibration": {"thresholds": [0.3, 0.6]}},
    "regression": {"head": {"mean": [100.0, 20.0], "std": [3.0, 0.2]}},
}
CHANNELS = {
    "input_size": [5, 32, 32],
    "mean": [0.5] * 5,
    "std": [0.2] * 5,
    "channels": 5,
    "value_range": [0, 8000],
}


@pytest.fixture
def pushed(tmp_path):
    """Returns a function that writes a checkpoint of random weights, and pushes it to a folder."""

    def push(task: str, preprocessing=(), recipe=(), **more) -> tuple[str, str]:
        torch.manual_seed(0)
        values = {**PREPROCESSING, **dict(preprocessing)}
        arguments = {"in_chans": values["input_size"][0]} if preprocessing else {}
        recipe = {"task": task, "data": {"source": "folder"}, **dict(recipe)}
        fields = {**FITTED[task], **more}
        info = ModelInfo(
            "test_resnet", arguments, ["a", "b"], values, recipe, "0.1", task, **fields
        )
        weights = load_task(task).build_model(info).state_dict()
        state = {f"model.{key}": value for key, value in weights.items()}
        checkpoint, folder = tmp_path / "last.ckpt", tmp_path / "pushed"
        save_torch({"state_dict": state, "spanets": info.to_dict()}, checkpoint)
        publish(checkpoint, str(folder))
        return str(checkpoint), str(folder)

    return push


@pytest.mark.parametrize("preprocessing", [{}, CHANNELS], ids=["rgb", "channels"])
@pytest.mark.parametrize("task", FITTED)
def test_it_is_exported_like_its_checkpoint(pushed, task, preprocessing):
    checkpoint, folder = pushed(task, preprocessing)
    images = torch.randn(2, preprocessing.get("channels", 3), 32, 32)
    (ours, told, _), (theirs, found, _) = load_source(checkpoint), load_source(folder)
    assert found["task"] == task
    for one in (told, found):  # timm adds defaults to the arguments and the preprocessing
        one |= {"version": "", "model_args": {}}
        one["preprocessing"].pop("crop_mode", None)
    assert found == told
    with torch.no_grad():
        # float32 rounding: the folder's last layer has the scale of the numbers in it
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-5, atol=1e-5)
        maps = [load_source(w, features_only=True)[0](images) for w in (checkpoint, folder)]
    assert len(maps[0]) > 1
    assert all(torch.equal(a, b) for a, b in zip(*maps, strict=True))


def test_it_keeps_the_temperature(pushed):
    _, folder = pushed("classification")
    assert temperature_of(open_source(folder).info, folder) == 1.7


def test_a_classifier_without_one_has_timms_configuration_alone(pushed, tmp_path):
    pushed("classification", calibration={})
    assert "spanets_task" not in json.loads((tmp_path / "pushed/config.json").read_text())


@pytest.mark.parametrize(
    ("task", "problem", "tag"),
    [
        ("classification", None, "image-classification"),
        ("multilabel", "multi_label_classification", "image-classification"),
        ("regression", "regression", None),
    ],
)
def test_other_libraries_are_told_the_meaning_of_the_outputs(pushed, tmp_path, task, problem, tag):
    """transformers' pipeline answers as `interpret` does; the hub calls only classifiers so."""
    pushed(task)
    assert json.loads((tmp_path / "pushed/config.json").read_text()).get("problem_type") == problem
    head = yaml.safe_load((tmp_path / "pushed/README.md").read_text().split("---\n")[1])
    assert head.get("pipeline_tag") == tag
    assert ("image-classification" in head["tags"]) == (tag is not None)


@pytest.mark.parametrize("task", FITTED)
def test_the_pipeline_of_transformers_answers_as_the_checkpoint(pushed, task):
    transformers = pytest.importorskip("transformers")
    checkpoint, folder = pushed(task)
    source = open_source(checkpoint)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    with torch.no_grad():
        outputs = source.network(torch.from_numpy(source.preprocess(image))[None])
        ours = load_task(task).interpret(source.info, outputs)[0].tolist()
    rows = transformers.pipeline("image-classification", model=folder)(image)
    theirs = {row["label"]: row["score"] for row in rows}
    # rounding of resized pixels; the scale of the numbers multiplies it
    assert theirs == pytest.approx(dict(zip("ab", ours, strict=True)), rel=1e-4)


@pytest.mark.parametrize("task", FITTED)
def test_the_snippet_of_many_channels_runs(pushed, tmp_path, capsys, monkeypatch, task):
    pushed(task, CHANNELS)
    np.save(tmp_path / "x.npy", np.full((40, 36, 5), 4000, np.uint16))
    text = (tmp_path / "pushed/README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(snippet.replace("FOLDER", "pushed").replace("IMAGE", "x.npy"), {})
    assert re.search(r"\b[ab]\b", capsys.readouterr().out)


# ---- the recipe on the card

# Keys of texts and mappings that hold no place. A new key goes here, or into `_PLACES`.
NO_PLACES = {
    *("data.auto_augment", "data.bands", "data.columns", "data.image_column", "data.label_column"),
    *("data.label_columns", "data.ordered", "data.separator", "data.targets"),
    *("model.args", "model.freeze", "model.lora.targets", "model.name"),
    *("optim.name", "trainer.logger", "trainer.metric"),
}


def texts_of(section: type, path: str = "") -> set[str]:
    """Returns the keys of a recipe that can hold any text."""
    hints, found = get_type_hints(section), set()
    for field in dataclasses.fields(section):
        kind, here = hints[field.name], f"{path}{field.name}"
        if dataclasses.is_dataclass(kind):
            found |= texts_of(kind, f"{here}.")
        elif "str" in str(kind) or "Any" in str(kind):
            found.add(here)
    return found


def test_every_key_is_known_to_hold_a_place_or_none():
    kinds = [t for t in map(load_task, list_tasks()) if t.__module__.startswith("spanets.")]
    keys = {key for task in kinds if task.is_image_level for key in texts_of(task.recipe_type)}
    assert keys == NO_PLACES | {".".join(place) for place in _PLACES}


def test_no_place_is_published(pushed, tmp_path):
    recipe = {"data": {}, "model": {}, "trainer": {}, "distill": {}}
    for section, key in _PLACES:
        recipe[section][key] = f"/secret/{key}"
    pushed("classification", recipe=recipe)
    for file in ("README.md", "config.json"):
        assert "secret" not in (tmp_path / "pushed" / file).read_text()
