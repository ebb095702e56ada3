"""Operators written for XNNPACK: the same values, and nothing left that it cannot run."""

from typing import Any

import pytest
import torch
from networks import OPTIONS_V2, error, images, short, stirred
from timm.layers import GroupNorm1, LayerNorm2d
from torch import Tensor, nn

from spanets.deploy.constants import fold_constants
from spanets.deploy.tracing import inference_form
from spanets.deploy.xnnpack import DECOMPOSITIONS
from spanets.mixers import SPAM, Attention, SpectralAdaptiveMixer

# What XNNPACK runs of what networks consist of, after torch's own decompositions.
KNOWN = {
    *("convolution", "mm", "bmm", "addmm", "add", "sub", "mul", "rsqrt", "mean", "gelu", "relu"),
    *("pow", "_softmax", "view", "permute", "slice", "cat", "clone", "sigmoid"),
}


def folded(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return fold_constants(torch.export.export(model, (x,), strict=False), x, DECOMPOSITIONS)


def operators(program: torch.export.ExportedProgram) -> set[str]:
    nodes = program.run_decompositions().graph.nodes
    return {n.target.__name__.split(".")[0] for n in nodes if n.op == "call_function"}


def check(model: nn.Module, x: Tensor) -> None:
    program = folded(inference_form(model, torch.float32), x)
    assert operators(program) <= KNOWN
    with torch.no_grad():
        assert error(program.module()(x), model(x)) < 1e-5


@pytest.mark.parametrize("mixer", [SPAM, SpectralAdaptiveMixer, Attention])
@pytest.mark.parametrize("batch", [1, 2])
def test_mixers_hold_only_what_xnnpack_runs(mixer: type[nn.Module], batch: int) -> None:
    model = nn.Sequential(GroupNorm1(32), stirred(mixer(32)), LayerNorm2d(32))
    check(model.eval(), torch.randn(batch, 32, 6, 8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("spanet_nano", {}),
        ("spanetv2_nano_pure", {}),
        pytest.param("spanetv2_nano_pure", OPTIONS_V2[5], id="attention"),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_networks_hold_only_what_xnnpack_runs(name: str, options: Any, batch: int) -> None:
    check(short(name, **options), images(64, 96, batch=batch))


class Kept(nn.Module):
    """Norms and products that stay as they are, or have other sizes than networks use."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.GroupNorm(2, 6)
        self.rows = nn.LayerNorm((4, 6))
        self.columns = nn.LayerNorm(6)
        self.matrix = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.columns(self.rows(self.groups(x)))  # (B, 6, 4, 6)
        x = self.matrix @ x @ self.matrix.new_ones(6, 5)  # (B, 6, 3, 5)
        first, *_, last = x.split(4, dim=1)
        return first[:, :2] + last + (first @ last[:, :1].mT).sum(-1, keepdim=True)[:, :2]


@pytest.mark.parametrize("batch", [1, 3])
def test_other_norms_and_products_keep_their_values(batch: int) -> None:
    model = Kept().eval().requires_grad_(False)
    x = torch.randn(batch, 6, 4, 6)
    torch.testing.assert_close(folded(model, x).module()(x), model(x))
