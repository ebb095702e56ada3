"""The backbones of detectors and segmenters: shapes, frozen stages, weights."""

import pytest
import timm
import torch
from torch import Tensor, nn

from spanets.backbones.dense import DenseBackbone
from spanets.weights import WeightsError
from spanets_runtime.errors import UsageError

NAMES = ("spanet_nano", "spanetv2_nano_pure", "resnet18", "convnext_atto")


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def same(ours: nn.Module, theirs: nn.Module, images: Tensor) -> bool:
    with torch.no_grad():
        pairs = zip(ours.eval()(images), theirs.eval()(images), strict=True)
        return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("size", [(64, 96), (67, 101)])
def test_a_pyramid(name, size):
    backbone = DenseBackbone(name)
    maps = backbone(torch.randn(1, 3, *size))
    assert tuple(x.shape[1] for x in maps) == backbone.out_channels
    for x, stride in zip(maps, (4, 8, 16, 32), strict=True):
        # Networks round up or down; the detectors' upsampling goes by the maps' own sizes.
        assert all(
            side // stride <= got <= -(-side // stride)
            for side, got in zip(size, x.shape[2:], strict=True)
        )


def test_fewer_maps(name):
    """Those that are left out leave no norm without a use."""
    backbone = DenseBackbone(name, frozen_stages=1, strides=(8, 16, 32))
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert [x.shape[-1] for x in maps] == [8, 4, 2]
    torch.stack([x.square().mean() for x in maps]).sum().backward()
    learning = {k: p for k, p in backbone.named_parameters() if p.requires_grad}
    assert not [key for key, value in learning.items() if value.grad is None]
    first = backbone.net.get_submodule(stage_name(name, 0))
    assert not any(p.requires_grad for p in first.parameters())


def test_channels_last_networks_give_channels_first():
    backbone = DenseBackbone("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": (1,) * 4})
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert [x.shape[1] for x in maps] == list(backbone.out_channels)


def test_every_parameter_gets_a_gradient(name):
    backbone = DenseBackbone(name)
    torch.stack([x.square().mean() for x in backbone(torch.randn(2, 3, 64, 64))]).sum().backward()
    assert not [key for key, value in backbone.named_parameters() if value.grad is None]


def test_norms_are_of_the_released_backbones():
    assert DenseBackbone("spanet_nano").net.model.output_norms[0].bias is not None
    assert DenseBackbone("spanetv2_nano_pure").net.model.output_norms[0].bias is None
    bare = DenseBackbone("spanet_nano", {"output_norm": False})
    assert bare.net.model.output_norms is None


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_frozen_stages(name, count):
    """What they give does not depend on the mode, and training reaches the others alone."""
    arguments = {"drop_path_rate": 0.9} if name != "resnet18" else {}
    backbone = DenseBackbone(name, arguments, frozen_stages=count).train()
    images = torch.randn(4, 3, 64, 64)
    first, second = backbone(images), backbone(images)
    for stage in range(count):
        assert torch.equal(first[stage], second[stage])
    for stage in range(4):
        module = backbone.net.get_submodule(stage_name(name, stage))
        assert {p.requires_grad for p in module.parameters()} == {stage >= count}
    stem = next(iter(backbone.net.parameters()))
    assert stem.requires_grad == (count == 0)
    assert backbone.training


SHALLOW = (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name_", "arguments"),
    [
        ("spanet_nano", {"output_norm": False, "depths": SHALLOW}),
        ("coat_lite_tiny", {"serial_depths": SHALLOW}),
        ("hiera_tiny_224", {"stages": SHALLOW}),
        ("twins_svt_small", {"depths": SHALLOW}),
    ],
)
def test_what_the_first_maps_depend_on_is_frozen(name_, arguments):
    """In these of timm's models, names or the order of registration would mislead."""
    count = 2
    with torch.device("meta"):
        free, frozen = (DenseBackbone(name_, arguments, stages) for stages in (0, count))
        maps = free(torch.empty(1, 3, 224, 224))
    names, values = zip(*free.net.named_parameters(), strict=True)
    total = torch.stack([x.sum() for x in maps[:count]]).sum()
    found = zip(names, torch.autograd.grad(total, values, allow_unused=True), strict=True)
    first = {key for key, grad in found if grad is not None}
    assert {key for key, p in frozen.net.named_parameters() if not p.requires_grad} == first


def test_stages_that_cannot_be_frozen_alone_are_refused():
    with torch.device("meta"):
        with pytest.raises(UsageError, match="every map of hrnet_w18_small depends on all stages"):
            DenseBackbone("hrnet_w18_small", frozen_stages=1)
        DenseBackbone("hrnet_w18_small")


def stage_name(name: str, stage: int) -> str:
    if name.startswith("spanet"):
        return f"model.stages.{stage}"
    return f"layer{stage + 1}" if name == "resnet18" else f"stages_{stage}"


def test_weights_of_a_classifier(name, tmp_path):
    """As `spanets train` writes them: behind `model.`, with a classifier."""
    torch.manual_seed(0)
    classifier = timm.create_model(name, num_classes=5)
    state = {f"model.{key}": value for key, value in classifier.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    torch.manual_seed(1)
    backbone = DenseBackbone(name, {"output_norm": False} if name.startswith("spanet") else {})
    report = backbone.load(tmp_path / "a.ckpt")
    assert report.skipped
    images = torch.randn(1, 3, 64, 64)
    _, maps = classifier.eval().forward_intermediates(images)
    maps = [x for x in maps if x.shape[-1] <= 16]  # not ResNet's at stride 2
    with torch.no_grad():
        for ours, theirs in zip(backbone.eval()(images), maps, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("prefix", ["backbone.", "model.backbone.body."])
def test_weights_of_a_detector(name, tmp_path, prefix):
    """A segmenter's or a detector's of this package, which hold a `DenseBackbone`."""
    torch.manual_seed(0)
    source = DenseBackbone(name)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    rest = {key.replace("body", "fpn"): torch.zeros(1) for key in [f"{prefix}x", "model.head.y"]}
    torch.save({"state_dict": {**rest, **state}}, tmp_path / "a.ckpt")
    torch.manual_seed(1)
    backbone = DenseBackbone(name)
    backbone.load(tmp_path / "a.ckpt")
    assert same(backbone, source, torch.randn(1, 3, 64, 64))


def test_wrong_weights_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(timm.create_model("resnet34").state_dict(), path)
    with pytest.raises(WeightsError, match=r"unexpected key layer1\.2"):
        DenseBackbone("resnet18").load(path)
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(WeightsError, match=r"missing key layer1\.2"):
        DenseBackbone("resnet34").load(path)
    with pytest.raises(WeightsError, match="has shape"):
        DenseBackbone("resnet26").load(path)


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="has no map at stride 4"):
        DenseBackbone("vit_tiny_patch16_224")
    with pytest.raises(UsageError, match="did you mean 'spanet_nano'"):
        DenseBackbone("spanet_nanno")
    with pytest.raises(ValueError, match="frozen_stages is 5, allowed: 0 to 4"):
        DenseBackbone("spanet_nano", frozen_stages=5)
