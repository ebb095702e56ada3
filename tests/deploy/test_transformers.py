"""A folder that `spanets push` wrote, in transformers: models, backbones, pipelines, training."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import call

from spanets.deploy.publish import publish
from spanets.sources import open_source

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(small_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("pushed") / "cells"
    publish(small_run / "last.ckpt", str(path))
    return str(path)


@pytest.fixture(scope="module")
def image():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_classifier_by_its_folder(folder, small_run, image):
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    source = open_source(small_run / "last.ckpt")
    assert list(model.config.id2label.values()) == source.info.classes
    x = torch.from_numpy(source.preprocess(image))[None]
    with torch.inference_mode():
        torch.testing.assert_close(model(x).logits, source.network(x))


def test_a_pipeline_answers_as_predict_does(folder, small_run, image, tmp_path, capsys):
    import json

    image.save(tmp_path / "x.png")
    classify = transformers.pipeline("image-classification", model=folder)
    theirs = {row["label"]: row["score"] for row in classify(image)}
    printed = call(capsys, "predict", small_run / "last.ckpt", tmp_path / "x.png", "--json")[1]
    ours = {row["label"]: row["probability"] for row in json.loads(printed)[0]["predictions"]}
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_a_backbone_by_its_name(image):
    import spanets  # noqa: F401

    config = transformers.TimmBackboneConfig(
        backbone="spanet_nano", use_pretrained_backbone=False, out_indices=[0, 1, 2, 3]
    )
    backbone = transformers.AutoBackbone.from_config(config).eval()
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 64, 64)).feature_maps
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [m.shape[1] for m in maps] == list(backbone.channels)


def test_the_trainer_changes_the_weights(folder, tmp_path):
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": i % 2} for i in range(4)]
    settings = transformers.TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=4, report_to=[], use_cpu=True
    )
    transformers.Trainer(model, settings, train_dataset=rows).train()
    assert any(not torch.equal(before[n], v) for n, v in model.state_dict().items())
    model.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(again.state_dict()[n], v) for n, v in model.state_dict().items())
