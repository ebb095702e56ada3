"""Weights in timm's other classes of feature extractors: ours, and those of other networks."""

from typing import Any

import pytest
import timm
import torch
from released_names import released_spanet, released_spanetv2
from torch import Tensor, nn

from spanets.weights import WeightsError, load_weights
from spanets.weights.earlier import earlier_name

SMALL: dict[str, dict[str, Any]] = {
    "spanet_nano": {"dims": (6, 7, 9, 12), "depths": (1, 1, 1, 1)},
    "spanetv2_nano_pure": {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "img_size": 64},
}
CLASSES = ("list", "dict", "hook", "fx")
FORMS = ("ours", "version 0.1", "released")


def extractor(name: str, kind: str, **arguments: Any) -> nn.Module:
    options = SMALL[name] | {"features_only": True, "feature_cls": kind} | arguments
    return timm.create_model(name, **options).eval()


def content(model: nn.Module, name: str, form: str) -> dict[str, Tensor]:
    if form == "released":
        return dict(released_spanet(model) if name == "spanet_nano" else released_spanetv2(model))
    state = model.state_dict()
    if form == "ours":
        return state
    earlier = {earlier_name(key): value for key, value in state.items()}
    return {k: v.flatten(1) if k.endswith("context.weight") else v for k, v in earlier.items()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", CLASSES[:3])
@pytest.mark.parametrize("name_", SMALL)
def test_every_form_of_file(build, name_, kind, form):
    model = build(name_, **SMALL[name_]).eval()
    features = extractor(name_, kind, out_indices=(0, 2))
    report = load_weights(features, content(model, name_, form))
    assert {key.split(".")[0] for key in report.skipped} >= {"stages", "head"}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = features(x)
        taps = model.forward_intermediates(x, indices=[0, 2], intermediates_only=True)
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    assert all(map(torch.equal, maps, taps))


def test_a_traced_graph(build):
    """It takes what can be compared with it, and refuses the rest."""
    model, features = build("spanet_nano", **SMALL["spanet_nano"]), extractor("spanet_nano", "fx")
    load_weights(features, content(model, "spanet_nano", "version 0.1"))
    assert torch.equal(features.graph_module.stem.conv.weight, model.stem.conv.weight)
    with pytest.raises(WeightsError, match=r"masks cannot be compared with .*feature_cls='fx'"):
        load_weights(features, content(model, "spanet_nano", "released"))
    model = build("spanetv2_nano_pure", **SMALL["spanetv2_nano_pure"])
    with pytest.raises(
        WeightsError, match=r"interleaved cannot be compared with .*feature_cls='fx"
    ):
        load_weights(extractor("spanetv2_nano_pure", "fx"), model.state_dict())


@pytest.mark.parametrize(
    ("name_", "form", "arguments", "message"),
    [
        ("spanetv2_nano_pure", "ours", {"merge": "concatenated"}, 'with merge="interleaved"'),
        ("spanetv2_nano_pure", "released", {"img_size": 96}, "create the model with the img_size"),
        ("spanetv2_nano_pure", "ours", {"scaled_gate": True}, "scaled_gate=False"),
        ("spanet_nano", "released", {"radii": (2, 2, 2, 1)}, "radius"),
    ],
)
def test_other_arguments_are_named(build, name_, form, arguments, message):
    """And the network stays as it was."""
    model, features = build(name_, **SMALL[name_]), extractor(name_, "list", **arguments)
    before = {key: value.clone() for key, value in features.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_weights(features, content(model, name_, form))
    assert all(torch.equal(value, before[key]) for key, value in features.state_dict().items())


def test_a_deeper_network_is_refused():
    """Where nothing is cut off, blocks that are too many are those of another network."""
    source = timm.create_model("test_vit", depth=7)
    with pytest.raises(WeightsError, match=r"unexpected key blocks\.6"):
        load_weights(timm.create_model("test_vit", features_only=True), source.state_dict())


def test_deeper_blocks_of_other_networks_are_reported():
    """timm prunes the networks within its extractors."""
    source = timm.create_model("test_vit", num_classes=3)
    features = timm.create_model("test_vit", features_only=True, out_indices=(0, 2))
    report = load_weights(features, source.state_dict())
    parts = {".".join(key.split(".")[:2]) for key in report.skipped}
    assert "blocks.5" in parts and "blocks.2" not in parts
    assert torch.equal(features.model.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)
    with pytest.raises(WeightsError, match=r"unexpected key blocks\.2\.extra"):
        load_weights(features, {**source.state_dict(), "blocks.2.extra": torch.ones(1)})
