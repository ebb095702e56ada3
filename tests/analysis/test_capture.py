"""Maps of any module, whatever its layout, as they are, in the order of the network."""

import pytest
import timm
import torch
from torch import nn

from spanets.analysis import capture, find_modules, stream, to_maps
from spanets.analysis.capture import on_maps
from spanets_runtime.errors import UsageError

FAMILIES = {
    "spanet_nano": 10,
    "spanetv2_nano_pure": 10,
    "spanetv2_nano_hybrid": 10,
    "test_convnext": None,
    "test_vit": None,
    "swin_tiny_patch4_window7_224": 12,
    "focalnet_tiny_srf": 12,
    "poolformer_s12": 12,
    "convformer_s18": 18,
    "caformer_s18": 18,
}


@pytest.mark.parametrize(("name", "count"), FAMILIES.items())
def test_families_have_a_preset(name, count):
    model = timm.create_model(name).eval()
    size = 224 if "swin" in name else 160 if name == "test_vit" else 64
    maps = capture(model, torch.randn(1, 3, size, size))
    if count is not None:
        assert len(maps) == count
    assert list(maps) == [n for n, _ in model.named_modules() if n in maps]
    sides = [m.shape[-1] for m in maps.values()]
    assert sides == sorted(sides, reverse=True)
    for given in maps.values():
        assert given.ndim == 4
        assert given.shape[-2] == given.shape[-1]


def test_blocks_and_patterns():
    model = timm.create_model("spanet_nano").eval()
    images = torch.randn(2, 3, 64, 96)
    blocks = capture(model, images, "blocks")
    assert blocks["stages.3.blocks.1"].shape == (2, 128, 2, 3)
    stages = capture(model, images, "stages.*")
    maps = model.forward_intermediates(images, intermediates_only=True, norm=False)
    for (name, ours), theirs in zip(stages.items(), maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert name.startswith("stages.")


def test_layouts_are_told_apart():
    nchw = torch.randn(2, 5, 8, 12)
    assert to_maps(nchw, (64, 96)) is nchw
    assert torch.equal(to_maps(nchw.permute(0, 2, 3, 1), (64, 96)), nchw)
    tokens = torch.cat([torch.zeros(2, 2, 5), nchw.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(to_maps(tokens, (64, 96), prefix_tokens=2), nchw)
    assert torch.equal(to_maps((nchw, None), (64, 96)), nchw)
    odd = torch.randn(1, 7, 3, 4)
    assert to_maps(odd, (47, 63)) is odd


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (torch.zeros(2, 5), r"no map: \(2, 5\)"),
        ({"a": 1}, "no map: dict"),
        (torch.zeros(1, 8, 8, 8), "could be NCHW and NHWC; give the layout"),
        (torch.zeros(1, 8, 3, 50), "has the images' proportions in no way"),
        (torch.zeros(1, 13, 8), "13 tokens less 0 do not fill a grid"),
    ],
)
def test_what_is_no_map(output, said):
    with pytest.raises(ValueError, match=said):
        to_maps(output, (64, 64))


def test_an_output_that_is_no_map_is_named():
    model = timm.create_model("test_resnet").eval()
    with pytest.raises(ValueError, match=r"^fc: no map"):
        capture(model, torch.randn(1, 3, 64, 64), "fc")


def test_names_that_match_nothing():
    model = timm.create_model("spanet_nano")
    with pytest.raises(
        UsageError, match=r"'stages.0.block.0'; the nearest are stages.0.blocks.0, \w+"
    ):
        find_modules(model, "stages.0.block.0")
    with pytest.raises(UsageError, match="Linear has no preset for 'mixers'"):
        find_modules(nn.Linear(2, 2))


def test_nothing_is_left_behind(small, build):
    model = build(small).eval()
    with pytest.raises(ValueError, match="image is 8x8"):
        capture(model, torch.randn(1, 3, 8, 8))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    seen: list[str] = []
    images = [torch.randn(2, 3, 32, 32), torch.randn(1, 3, 32, 32)]
    assert stream(model, images, lambda name, maps: seen.append(name), "stages.0.blocks.0") == 3
    assert seen == ["stages.0.blocks.0"] * 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_known_family_is_not_forced_on_inner_modules():
    """ConvNeXt's blocks are NCHW, what lies inside their MLPs is channels last."""
    model = timm.create_model("test_convnext").eval()
    maps = capture(model, torch.randn(1, 3, 64, 96), "stages.0.blocks.0.mlp")
    (given,) = maps.values()
    assert given.shape[-2:] == (16, 24)


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_modules_of_any_layout_become_functions_of_maps(layout):
    """A linear layer over channels, whatever the layout it works in."""
    weight, maps = torch.randn(5, 5), torch.randn(1, 5, 8, 12)
    prefix = torch.randn(1, 1, 5)
    given = {
        "nchw": maps,
        "nhwc": maps.permute(0, 2, 3, 1),
        "tokens": torch.cat([prefix, maps.flatten(2).mT], 1),
    }[layout]

    def module(x):
        assert x.shape[1:] == given.shape[1:]
        if layout == "tokens":
            assert torch.equal(x[:, :1], prefix.expand(len(x), -1, -1))
        return torch.einsum("oc,bchw->bohw", weight, x) if layout == "nchw" else x @ weight.mT

    run, point = on_maps(module, given, (64, 96), prefix_tokens=1)
    assert torch.equal(point, maps)
    several = torch.randn(3, 5, 8, 12)
    torch.testing.assert_close(run(several), torch.einsum("oc,bchw->bohw", weight, several))
