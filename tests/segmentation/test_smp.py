"""Decoders of segmentation-models-pytorch on this package's encoders."""

import pytest
import torch

import spanets  # noqa: F401 (registers the models)

smp = pytest.importorskip("segmentation_models_pytorch")


OTHERS = ("FPN", "UPerNet", "Segformer", "MAnet")


@pytest.mark.parametrize("encoder", ["tu-spanet_nano", "tu-spanetv2_nano_hybrid"])
@pytest.mark.parametrize(
    "decoder", ["Unet", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_decoders(decoder, encoder):
    model = getattr(smp, decoder)(encoder, encoder_weights=None, classes=5)
    logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 5, 64, 96)
    logits.square().sum().backward()
    assert all(p.grad.any() for p in model.encoder.model.stem.parameters())
