"""Layer decay against the table of the released scripts."""

import pytest
import torch

from spanets.backbones.dense import DenseBackbone
from spanets.detection.decay import count_layers, layer_of, scale_of
from spanets_runtime.errors import UsageError

BODY = "backbone.body.net.model."


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("stem.conv.weight", 0),
        ("stages.0.blocks.2.norm1.weight", 1),
        ("stages.1.downsample.conv.weight", 2),
        ("stages.1.blocks.0.mlp.fc1.weight", 2),
        ("stages.2.downsample.norm.weight", 3),
        ("stages.2.blocks.0.norm1.weight", 3),
        ("stages.2.blocks.2.norm1.weight", 3),
        ("stages.2.blocks.3.norm1.weight", 4),
        ("stages.2.blocks.8.norm1.weight", 5),
        ("stages.3.downsample.conv.weight", 6),
        ("stages.3.blocks.2.norm1.weight", 6),
        ("output_norms.0.weight", 7),
    ],
)
def test_layers_of_a_depth_of_nine(name, layer):
    assert layer_of(BODY + name, 6) == layer
    assert scale_of(BODY + name, 6, 0.7) == pytest.approx(0.7 ** (7 - layer))


@pytest.mark.parametrize(
    "name", ["backbone.fpn.inner_blocks.0.0.weight", "roi_heads.stages.0.box_head.0.0.weight"]
)
def test_necks_and_heads_learn_at_the_full_rate(name):
    assert scale_of(name, 6, 0.7) == 1


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [("spanetv2_s18_pure", 6), ("spanetv2_s36_hybrid", 9), ("convnext_tiny", 6)],
)
def test_no_layer_learns_faster_than_the_head(backbone, layers):
    with torch.device("meta"):
        names = [name for name, _ in DenseBackbone(backbone).named_parameters()]
    assert count_layers(names) == layers
    assert {layer_of(name, layers) for name in names} >= set(range(layers + 1))
    assert max(scale_of(name, layers, 0.7) for name in names) <= 1


def test_networks_without_such_names_are_refused():
    names = [name for name, _ in DenseBackbone("resnet18").named_parameters()]
    with pytest.raises(UsageError, match=r"optim\.layer_decay needs a backbone whose parameters"):
        count_layers(names)
