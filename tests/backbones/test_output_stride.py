"""Networks whose last stages are dilated instead of strided."""

import pytest
import timm
import torch
from timm.layers import GroupNorm1, LayerNorm2d
from torch import nn

from spanets import own_models
from spanets.mixers.adaptive import SpectralFilter


def at_stride(name: str, stride: int, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, output_stride=stride, num_classes=3, **arguments).eval()


def make_local(model: nn.Module) -> nn.Module:
    """Replaces what looks at the whole map: norms over positions, and spectral filters."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, GroupNorm1):
                setattr(module, name, LayerNorm2d(child.num_channels))
            if isinstance(child, SpectralFilter):
                setattr(module, name, nn.Identity())
    return model


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(
    ("name", "options"), [("spanet_nano", {"spectral_filter": False}), ("spanetv2_nano_pure", {})]
)
def test_a_dilated_network_contains_the_strided_one(name, options, stride):
    x = torch.randn(1, 3, 96, 64)
    strided, dilated = (make_local(at_stride(name, s, **options)) for s in (32, stride))
    with torch.no_grad():
        pairs = zip(
            *(m.forward_intermediates(x, intermediates_only=True) for m in (strided, dilated)),
            strict=True,
        )
        for few, many in pairs:
            step = many.shape[-1] // few.shape[-1]
            torch.testing.assert_close(many[..., ::step, ::step], few, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", own_models())
def test_maps_have_the_strides_that_they_name(name, stride):
    shallow = {"depths": (1, 1, 1, 1), "output_stride": stride, "device": "meta"}
    model = timm.create_model(name, features_only=True, **shallow)
    maps = model(torch.empty(1, 3, 64, 128, device="meta"))
    strides = model.feature_info.reduction()
    assert strides == [min(s, stride) for s in (4, 8, 16, 32)]
    assert [tuple(m.shape[-2:]) for m in maps] == [(64 // s, 128 // s) for s in strides]


def test_weights_do_not_depend_on_the_stride():
    strided, dilated = at_stride("spanet_nano", 32), at_stride("spanet_nano", 8)
    dilated.load_state_dict(strided.state_dict())


def test_unknown_stride():
    with pytest.raises(ValueError, match="output_stride is 4, allowed: 8, 16, 32"):
        at_stride("spanet_nano", 4)
