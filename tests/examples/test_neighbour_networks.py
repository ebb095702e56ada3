"""The neighbours as timm models: equal parameters, any size, folding, the command line."""

import runpy
import sys

import neighbours
import pytest
import timm
import torch
from neighbours.networks import SIZED
from timm.utils import reparameterize_model

import spanets
from spanets.bench import count_parameters

NAMES = [f"neighbour_{name}" for name in neighbours.MIXERS]


SIZES = [(name, 32) for name in NAMES]
SIZES += [(name, 224) for name in NAMES if name.removeprefix("neighbour_") in SIZED]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_parameters_are_those_of_spanet(name, size):
    with torch.device("meta"):
        wanted = count_parameters(timm.create_model("spanet_nano", num_classes=0))
        found = count_parameters(timm.create_model(name, num_classes=0, img_size=size))
    # One step of 4 channels in every stage changes the parameters by up to 6 %.
    assert found == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_network(name):
    """Any size, a gradient for every parameter, and folding, which leaves norms where it must."""
    model = timm.create_model(name, num_classes=3, img_size=32)
    assert model(torch.randn(2, 3, 40, 35)).shape == (2, 3)
    x = torch.randn(2, 3, 32, 32)
    model(x).square().sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    for module in model.eval().modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    with torch.no_grad():
        # Float32 rounding over a whole network.
        torch.testing.assert_close(reparameterize_model(model)(x), model(x), rtol=1e-3, atol=1e-4)


def test_maps():
    backbone = timm.create_model("neighbour_wavelet", features_only=True)
    shapes = [tuple(x.shape[2:]) for x in backbone(torch.randn(2, 3, 32, 40))]
    assert shapes == [(8, 10), (4, 5), (2, 3), (1, 2)]


def test_errors():
    with pytest.raises(ValueError, match="mixer is 'fnet', allowed: identity, pooling"):
        neighbours.Neighbour("fnet")
    with pytest.raises(ValueError, match="like is 'resnet', allowed: spanet_nano"):
        neighbours.Neighbour("afno", like="resnet")


def test_a_source_and_the_command_line(capsys, monkeypatch):
    source = spanets.open_source("neighbours.networks:neighbour_pooling")
    assert source.network(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    words = ["bench", "neighbour_global_filter", "spanet_nano", "--size", "32", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["neighbours", *words])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("neighbours", run_name="__main__")
    assert not done.value.code
    assert "neighbour_global_filter" in capsys.readouterr().out


def test_comparison(capsys, monkeypatch):
    words = ["neighbour_pooling", "neighbour_afno", "--size", "32", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["compare", *words, "--backends", "eager", "--no-export"])
    runpy.run_module("neighbours.compare", run_name="__main__")
    shown = capsys.readouterr().out
    assert shown.count("neighbour_") == 2


@pytest.mark.slow  # each export takes seconds
def test_exports(capsys):
    pytest.importorskip("onnxscript")
    from neighbours.compare import describe_export

    assert describe_export("neighbour_pooling", 32).startswith("neighbour_pooling: ONNX")
