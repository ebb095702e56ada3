"""Weights of one set of classes for another: timm's own name of the classifier decides."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from spanets.weights import LoadReport, WeightsError, load_weights
from spanets.weights.matching import match, rules_of

# One of each name that timm has for a classifier: "fc", ("head", "head_dist"), "last_linear", ...
ODD = [
    "beit_base_patch16_224",
    "caformer_s18",
    "convnext_atto",
    "crossvit_tiny_240",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "efficientnet_b0",
    "efficientvit_b0",
    "efficientvit_m0",
    "inception_next_atto",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "levit_128s",
    "mobilenetv3_small_050",
    "nasnetalarge",
    "regnetx_002",
    "resnet18",
    "swin_tiny_patch4_window7_224",
    "vgg11",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
]

# Built in a moment: several classifiers, one under another name, distilled ones, with and without
# a layer of their own before them.
_QUICK = ("convnext_atto", "deit_tiny_distilled_patch16_224", "efficientnet_b0", "levit_128s")
_QUICK += ("mobilenetv3_small_050", "resnet18", "vgg11", "crossvit_tiny_240")
SOME = [pytest.param(name, marks=[pytest.mark.slow] * (name not in _QUICK)) for name in ODD]


def families() -> list[str]:
    """The first model of every file of timm's and every name of a classifier in it."""
    first: dict[tuple[str, str], str] = {}
    for name in timm.list_models(exclude_filters="spanet*"):
        config = timm.get_pretrained_cfg(name)
        if config is None or config.classifier is None:
            continue
        module = timm.models.model_entrypoint(name).__module__
        first.setdefault((module, str(config.classifier)), name)
    return sorted(set(first.values()) - set(ODD))


def skeleton(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=classes)


@pytest.mark.parametrize(
    "name", [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in families())]
)
def test_what_depends_on_the_classes_is_reset_and_nothing_else(name):
    file, model = skeleton(name, 11).state_dict(), skeleton(name, 7)
    own = model.state_dict()
    differ = {key for key in file if file[key].shape != own[key].shape}
    report = LoadReport("file")
    loaded = match(file, own, report, rules_of(model, reset=True))
    assert set(report.fresh) == differ != set()
    assert loaded.keys() == own.keys() - differ
    for key in differ:
        assert report.fresh[key] == "the file's classifier is for 11 classes, the model's for 7"
    with pytest.raises(WeightsError, match="has shape"):
        match(file, own, LoadReport("file"), rules_of(model))


@pytest.mark.parametrize("name", SOME)
def test_files_and_models_without_a_classifier(name):
    full, headless = skeleton(name, 7), skeleton(name, 0)
    more = full.state_dict().keys() - headless.state_dict().keys()
    report = LoadReport("file")
    match(full.state_dict(), headless.state_dict(), report, rules_of(headless))
    assert set(report.skipped) == more
    report = LoadReport("file")
    match(headless.state_dict(), full.state_dict(), report, rules_of(full, reset=True))
    assert set(report.fresh) == more
    with pytest.raises(WeightsError, match="missing key"):
        match(headless.state_dict(), full.state_dict(), LoadReport("file"), rules_of(full))


@pytest.mark.parametrize("name", SOME)
def test_images_of_other_channels(name):
    with torch.device("meta"):
        gray = timm.create_model(name, num_classes=7, in_chans=1)
    with pytest.raises(WeightsError) as caught:
        match(skeleton(name, 7).state_dict(), gray.state_dict(), LoadReport("file"), rules_of(gray))
    message = str(caught.value)
    assert "the file's images have 3 channels, the model's 1; create the model with in_chans=3" in (
        message
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_fine_tuning_on_other_classes(name, tmp_path):
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=1000)
    path = tmp_path / "a.pth"
    torch.save(source.state_dict(), path)
    model = timm.create_model(name, num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_weights(model, path, reset_classifier=True)
    parameters = set(model.get_classifier().parameters())
    reset = {key for key, value in model.named_parameters() if value in parameters}
    assert set(report.fresh) == reset
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in reset else source.state_dict()[key])
    assert str(report).splitlines()[1:] == [
        f"2 keep their initial values: {', '.join(sorted(reset))} "
        "(the file's classifier is for 1000 classes, the model's for 3)"
    ]


def test_a_model_of_other_origin(tmp_path):
    """Without timm's configuration; the classifier is called head, or is loaded like the rest."""

    class Plain(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(2, 2), nn.Linear(2, classes)

    torch.save(Plain(5).state_dict(), tmp_path / "a.pth")
    report = load_weights(Plain(3), Path(tmp_path / "a.pth"), reset_classifier=True)
    assert set(report.fresh) == {"head.weight", "head.bias"}
