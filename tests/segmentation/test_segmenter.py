"""Whole segmenters: sizes of images, costs as published, and what is refused."""

import math

import pytest
import timm
import torch

from spanets.backbones.dense import DenseBackbone
from spanets.bench.costs import count_costs, count_parameters
from spanets.segmentation import SEGMENTERS, Segmenter, make_segmenter
from spanets_runtime.errors import UsageError

SMALL = {"semantic_fpn": {"pyramid_channels": 16, "channels": 8}, "upernet": {"channels": 8}}


@pytest.fixture(scope="module", params=["spanet_nano", "spanetv2_nano_hybrid"])
def backbone(request) -> DenseBackbone:
    torch.manual_seed(0)
    return DenseBackbone(request.param)


@pytest.fixture(params=SEGMENTERS)
def segmenter(request, backbone) -> Segmenter:
    torch.manual_seed(0)
    model = make_segmenter(request.param, backbone, 5, SMALL[request.param])
    torch.nn.init.normal_(model.classifier.weight)  # near zero, differences would be hard to see
    return model.eval()


@pytest.mark.parametrize("size", [(64, 64), (65, 130), (97, 33), (32, 32)])
def test_logits_of_every_pixel(segmenter, size):
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        together = segmenter(images)
        alone = torch.cat([segmenter(image[None]) for image in images])
    assert together.shape == (2, 5, *size)
    assert together.std() > 0.1
    # Batches are convolved by other kernels: float32 rounding.
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_every_parameter_learns(kind):
    torch.manual_seed(0)
    model = make_segmenter(kind, DenseBackbone("spanet_nano"), 3, SMALL[kind])
    outputs = model(torch.randn(2, 3, 64, 96))
    if kind == "upernet":
        assert [x.shape for x in outputs] == [(2, 3, 64, 96)] * 2
    sum(x.square().sum() for x in outputs).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_the_auxiliary_head_rests_in_evaluation(backbone):
    model = make_segmenter("upernet", backbone, 3, SMALL["upernet"]).eval()
    model.auxiliary.register_forward_hook(lambda *_: pytest.fail("was run"))
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def classifier_parameters(name: str) -> int:
    """Of the ImageNet classifier, which a segmenter has not."""
    with torch.device("meta"):
        model = timm.create_model(name)
    return count_parameters(model) - count_parameters(model.stem) - count_parameters(model.stages)


def build(kind: str, name: str, size: object = None, **arguments: object) -> Segmenter:
    with torch.device("meta"):
        model_args = {} if size is None else {"spectral_method": "fft", "img_size": size}
        return make_segmenter(kind, DenseBackbone(name, model_args), 150, arguments).eval()


def attention_macs(model: Segmenter, height: int, width: int) -> int:
    """Of the two products of attention maps, which grow with the square of the pixels."""
    total = 0
    for stride, stage in zip((16, 32), model.backbone.net.model.stages[2:], strict=True):
        pixels = height // stride * (width // stride)
        total += sum(2 * pixels**2 * block.norm1.normalized_shape[0] for block in stage.blocks)
    return total


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("spanet_small", 32, 46),
        pytest.param("spanet_medium", 45, 57, marks=pytest.mark.slow),
    ],
)
def test_spanet_costs_as_published(name, parameters, macs):
    model = build("semantic_fpn", name)
    assert count_parameters(model) / 1e6 == pytest.approx(parameters, rel=0.02)
    assert count_costs(model, 512).macs / 1e9 == pytest.approx(macs, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "name", "parameters", "macs"),
    [
        ("semantic_fpn", "s18_pure", 33, 43),
        pytest.param("semantic_fpn", "s18_hybrid", 31, 48, marks=pytest.mark.slow),
        pytest.param("semantic_fpn", "s36_pure", 48, 64, marks=pytest.mark.slow),
        pytest.param("semantic_fpn", "s36_hybrid", 45, 74, marks=pytest.mark.slow),
        ("upernet", "s18_pure", 60, 930),
        ("upernet", "s18_hybrid", 58, 925),
        pytest.param("upernet", "s36_pure", 75, 1012, marks=pytest.mark.slow),
        pytest.param("upernet", "s36_hybrid", 71, 1004, marks=pytest.mark.slow),
    ],
)
def test_spanetv2_costs_as_published(kind, name, parameters, macs):
    """SPANetV2's tables count the ImageNet classifier, and UPerNet's 512 channels.

    They count no Fourier transforms, nor in UPerNet the products of attention maps.
    """
    size = (512, 512) if kind == "semantic_fpn" else (512, 2048)
    name, arguments = f"spanetv2_{name}", {"channels": 512} if kind == "upernet" else {}
    counted = count_parameters(build(kind, name, **arguments)) + classifier_parameters(name)
    assert counted / 1e6 == pytest.approx(parameters, rel=0.02)
    # With filters of this size none is resized, which takes seconds on the meta device.
    model = build(kind, name, size, **arguments)
    found = count_costs(model, size).macs
    if kind == "upernet" and name.endswith("hybrid"):
        found -= attention_macs(model, *size)
    assert found / 1e9 == pytest.approx(macs, rel=0.02)


def test_upernet_as_released_is_smaller_than_published():
    """The training scripts' 320 channels."""
    assert math.isclose(
        count_parameters(build("upernet", "spanetv2_s18_pure")) / 1e6, 39.3, abs_tol=0.05
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("upernett", {}, "unknown segmenter 'upernett'; did you mean 'upernet'"),
        ("upernet", {"chanels": 3}, "upernet has no argument 'chanels'; did you mean 'channels'"),
        ("semantic_fpn", {"pools": [1]}, r"no argument 'pools'.* \(known: pyramid_channels, chan"),
        ("semantic_fpn", {"dropout": 2}, "semantic_fpn with {'dropout': 2}: dropout probability"),
        ("upernet", {"channels": "many"}, "upernet with {'channels': 'many'}: "),
        ("upernet", {"channels": 0}, "upernet with {'channels': 0}: "),
    ],
)
def test_refused(kind, arguments, message, backbone):
    with pytest.raises(UsageError, match=message):
        make_segmenter(kind, backbone, 3, arguments)
