"""What models cost, against numbers known from elsewhere."""

import re
from contextlib import nullcontext

import pytest
import timm
import torch
from torch import nn

import spanets
from spanets.bench import count_costs, count_macs, count_parameters, model_table
from spanets.bench.recount import count_row
from spanets_runtime.errors import UsageError


def test_macs_of_layers_known_in_closed_form():
    size, channels = 8, 5
    layers = nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.Flatten()
    )
    pixels = (size // 2) ** 2
    linear = nn.Linear(channels * pixels, 7)
    assert count_macs(nn.Sequential(layers, linear), size) == (
        pixels * channels * 3 * 9 + channels * pixels * 7
    )


def test_resnet18_costs_what_is_published():
    """He et al. 2016, Table 1: 1.8 G multiply-adds, 11.7 M parameters."""
    with torch.device("meta"):
        model = timm.create_model("resnet18").train()
    assert count_macs(model) == pytest.approx(1.81e9, rel=5e-3)
    assert count_parameters(model) == 11_689_512
    assert model.training


def test_frozen_parameters_are_counted_if_wanted():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6
    assert count_parameters(model, frozen=True) == 8


class Failing(nn.Conv2d):
    def forward(self, x):
        raise ArithmeticError


@pytest.mark.parametrize("last", [nn.Conv2d, Failing])
def test_every_module_keeps_its_mode(last):
    """Frozen parts of a network that trains are in evaluation mode; also after an error."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), last(3, 3, 1)).train()
    model[0].eval()
    with nullcontext() if last is nn.Conv2d else pytest.raises(ArithmeticError):
        count_costs(model, 8)
    assert [module.training for module in model.modules()] == [True, False, True]


def test_macs_grow_with_the_image():
    with torch.device("meta"):
        model = timm.create_model("spanet_nano")
    small, large = count_macs(model, 64), count_macs(model, 128)
    assert 3.5 < large / small < 4.5


def test_every_model_has_a_row():
    """If not, run `make model-table`."""
    assert [row["model"] for row in model_table()] == spanets.list_models()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (not re.search("nano|tiny", name)))
        for name in spanets.list_models()
    ],
)
def test_rows_are_what_is_counted(name):
    assert model_table(name) == [count_row(name)]


def test_a_row_of_the_table():
    """SPANet, Table 2: 28.7 M parameters, 4.6 G MACs, 83.1 %."""
    (small,) = model_table("spanet_small")
    assert small["parameters"] == pytest.approx(28.7e6, rel=0.01)
    assert small["macs"] == pytest.approx(4.6e9, rel=0.02)
    assert small["top1_paper"] == 83.1
    assert small["weights"].startswith("https://github.com/")


def test_what_is_not_published_is_none():
    """All rows are compared with the README's table (tests/test_readme.py)."""
    for row in model_table("*_nano*"):
        assert row["top1_paper"] is None
        assert row["weights"] is None


def test_patterns():
    assert [row["model"] for row in model_table("*_nano")] == ["spanet_nano"]
    for pattern in ("*smal", "smal", "spanet_smal"):
        with pytest.raises(UsageError, match="did you mean 'spanet_small'"):
            model_table(pattern)
    with pytest.raises(UsageError, match="known are spanet_nano, "):
        model_table("zzzzz")


class Transforms(nn.Module):
    """A real transform, a complex one, and the real one's inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        spectrum = torch.fft.rfft2(x * self.scale)
        return torch.fft.irfft2(spectrum, s=x.shape[-2:]) + torch.fft.fft2(x).real


def test_transforms_are_counted_apart():
    """5 N log2 N for a complex transform of N points, half of it for a real one, 3 maps each."""
    costs = count_costs(Transforms(), 16)
    assert costs.macs == 0
    assert costs.fft_flops == 3 * (2.5 + 2.5 + 5) * 256 * 8


def test_the_default_forms_have_no_transform(small):
    """`test_precision.py` looks for transforms in all models."""
    assert count_costs(timm.create_model(small, device="meta"), 64).fft_flops == 0


def test_the_fft_form_has_one_for_each_context():
    with torch.device("meta"):
        model = timm.create_model("spanet_nano", spectral_method="fft")
    plain = timm.create_model("spanet_nano", spectral_filter=False)
    costs = count_costs(model, 64)
    assert costs.fft_flops > 0
    assert costs.macs == count_costs(plain, 64).macs
