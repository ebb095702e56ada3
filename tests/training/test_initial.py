"""What a run starts from: open preprocessing keys, frozen modules."""

import json

import pytest
import timm
import torch
from torch import nn

from spanets.checkpoint import INFO_KEY, save_torch
from spanets.recipe import load_recipe, parse_recipe
from spanets.recipe.preprocessing import OPEN, describe_preprocessing
from spanets.tasks import list_tasks, load_task
from spanets.training import initial
from spanets.training.batch_norm import refuse_single_values
from spanets.training.initial import Frozen, find_frozen
from spanets_runtime.errors import UsageError, UserError

LITE = "tf_efficientnet_lite0"  # trained with mean and deviation 0.5


def settled(*words: str) -> tuple:
    recipe = load_recipe("photos", list(words))
    return recipe.data, describe_preprocessing(recipe)


def test_from_scratch_open_keys_are_imagenets():
    data, _ = settled()
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)
    assert (data.crop_pct, data.interpolation) == (0.9, "bicubic")


@pytest.mark.parametrize("start", [("--model.pretrained", "true"), ("--model.weights", "x.pth")])
def test_pretrained_weights_bring_their_preprocessing(start):
    data, line = settled("--model.name", LITE, *start)
    assert data.mean == data.std == (0.5, 0.5, 0.5)
    assert (data.crop_pct, data.interpolation) == (0.875, "bicubic")
    assert line == (
        f"the pretrained weights of {LITE} expect mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5], "
        "crop_pct 0.875, interpolation bicubic: used"
    )


def test_the_recipe_wins_and_the_line_says_so():
    words = ("--model.name", LITE, "--model.pretrained", "true", "--data.mean", "0.4,0.4,0.4")
    data, line = settled(*words)
    assert data.mean == (0.4, 0.4, 0.4)
    assert data.std == (0.5, 0.5, 0.5)
    assert line.endswith("; the recipe changes data.mean")


@pytest.fixture
def trained(tmp_path):
    """A checkpoint that was trained with another normalization."""
    words = ["--data.mean", "0.1", "--data.std", "0.05", "--data.crop_pct", "1"]
    recipe = load_recipe("photos", ["--model.name", LITE, *words])
    info = load_task(recipe.task)(recipe).make_info(["cat", "dog"])
    save_torch({INFO_KEY: info.to_dict(), "state_dict": {}}, tmp_path / "last.ckpt")
    return str(tmp_path / "last.ckpt")


def test_a_checkpoint_brings_the_preprocessing_it_was_trained_with(trained):
    words = ("--model.name", LITE, "--model.weights", trained)
    data, line = settled(*words)
    assert (data.mean, data.std, data.crop_pct) == ((0.1,) * 3, (0.05,) * 3, 1)
    expects = f"the weights of {trained} expect mean [0.1, 0.1, 0.1], std [0.05, 0.05, 0.05], "
    assert line == f"{expects}crop_pct 1, interpolation bicubic: used"
    data, line = settled(*words, "--data.mean", "0.4", "--data.crop_pct", "0.9")
    assert (data.mean, data.std, data.crop_pct) == ((0.4,) * 3, (0.05,) * 3, 0.9)
    assert line.endswith("; the recipe changes data.mean, data.crop_pct")
    # Means of three channels say nothing about four.
    data, _ = settled(*words, "--data.channels", "4", "--data.mean", "0", "--data.std", "1")
    assert (data.mean, data.crop_pct) == ((0,) * 4, 1)


def test_a_pushed_folder_brings_its_preprocessing(tmp_path):
    config = {"mean": [0.1, 0.1, 0.1], "std": [1, 1, 1], "interpolation": "lanczos"}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
    data, line = settled("--model.name", LITE, "--model.weights", str(tmp_path))
    assert (data.mean, data.std, data.interpolation) == ((0.1,) * 3, (1.0,) * 3, "bicubic")
    assert line.startswith(f"the weights of {tmp_path} expect mean [0.1, 0.1, 0.1]")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json: damaged \('pretrained_cfg'\)"):
        settled("--model.weights", str(tmp_path))


@pytest.mark.parametrize("task", list_tasks())
def test_null_and_left_out_mean_the_same(task):
    left_out = parse_recipe({"task": task})
    data = left_out.to_dict()["data"]
    null = {key: None for key in OPEN if key in data}
    assert null
    assert parse_recipe({"task": task, "data": null}) == left_out
    assert parse_recipe(left_out.to_dict()) == left_out
    model = {"name": LITE, "pretrained": True}
    tuned = parse_recipe({"task": task, "model": model})
    assert tuned == parse_recipe({"task": task, "model": model, "data": null})
    assert tuned.data.mean == (0.5, 0.5, 0.5)
    assert parse_recipe(tuned.to_dict()) == tuned


@pytest.mark.parametrize("name", ["spanet_nano", "spanetv2_s18_pure", LITE, "vit_tiny_patch16_224"])
def test_backbone_is_all_but_the_classifier(name):
    model = timm.create_model(name, num_classes=3)
    frozen = find_frozen(model, "backbone")
    Frozen(frozen)
    left = {key for key, p in model.named_parameters() if p.requires_grad and "." in key}
    assert len({key.partition(".")[0] for key in left}) == 1
    assert any(p.requires_grad for p in model.get_classifier().parameters())


def test_frozen_modules_stay_in_evaluation_mode_and_unchanged():
    model = timm.create_model("test_resnet", num_classes=2)
    frozen = find_frozen(model, "conv1,bn1,layer1*,layer2.0.conv1")
    assert not any(name.startswith("layer1.") for name in frozen)  # `layer1` is enough
    callback = Frozen(frozen)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    callback.on_train_start(None, None)
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    inside = ("conv1.", "bn1.", "layer1.", "layer2.0.conv1.")
    assert changed
    assert not [key for key in changed if key.startswith(inside)]


def test_frozen_batch_norms_take_single_images():
    model, image = timm.create_model("resnet18", num_classes=2), torch.zeros(1, 3, 32, 32)
    Frozen(find_frozen(model, "layer4"))
    refuse_single_values(model, image, 1)
    assert model.training and not model.layer4.training
    model(image)  # and so says torch
    model.train()
    with pytest.raises(UsageError, match=r"layer4\.0\.bn1"):
        refuse_single_values(model, image, 1)


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ("stagse.0", "matches no module with parameters; did you mean 'stages.0'"),
        ("*", "leaves nothing to train"),
        ("backbone,head", "leaves nothing to train"),
        ("nonsense", "the first are stem"),
    ],
)
def test_wrong_patterns_are_refused(patterns, said):
    with pytest.raises(UsageError, match=r"model\.freeze") as caught:
        find_frozen(timm.create_model("spanet_nano", num_classes=2), patterns)
    assert said in str(caught.value)


def test_a_module_named_backbone_is_that_module():
    model = nn.Module()
    model.backbone, model.head = nn.Linear(2, 2), nn.Linear(2, 2)
    assert list(find_frozen(model, "backbone")) == ["backbone"]


@pytest.mark.parametrize("name", ["photos", "shapes_semantic_fpn", "shapes_mask_rcnn"])
def test_every_task_starts_from_published_weights(name, monkeypatch):
    published = timm.create_model("spanet_nano")
    monkeypatch.setattr(initial, "create_pretrained", lambda name, arguments: published)
    recipe = load_recipe(name, ["--model.name", "spanet_nano", "--model.pretrained", "true"])
    task = load_task(recipe.task)(recipe)
    model = task.build_model(task.make_info(["cat", "dog"]))
    report = task.load_weights(model, initial.pretrained_weights(recipe))
    own = {key.partition("stages.")[2]: value for key, value in model.state_dict().items()}
    stages = published.stages.state_dict()
    assert report.loaded >= len(stages)
    assert all(own[key].equal(value) for key, value in stages.items())
