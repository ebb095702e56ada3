"""When a kernel may stand for layers, as far as that can be told without a GPU."""

import pytest
import torch
from torch import Tensor, fx, nn

from spanets.layers import GroupedPointwiseConv, MapNorm, PointwiseConv, block_diagonal, is_plain
from spanets.mixers import SPAM


class Adapter(nn.Module):
    """What adapters put in the place of a layer: it has the layer's weight, and does more."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.layer(x)


class Packed(Tensor):
    """What quantizers put in the place of a weight."""


def test_only_untouched_layers_are_plain():
    layer = PointwiseConv(4, 4)
    assert is_plain(layer, PointwiseConv)
    assert not is_plain(layer, nn.Conv2d)
    assert not is_plain(MapNorm(4), PointwiseConv)
    assert not is_plain(Adapter(layer), PointwiseConv)
    handle = layer.register_forward_hook(lambda *call: None)
    assert not is_plain(layer, PointwiseConv)
    handle.remove()
    assert is_plain(layer, PointwiseConv)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Packed))
    assert not is_plain(layer, PointwiseConv)


@torch.no_grad()
def test_a_mixer_calls_what_stands_in_a_layers_place_traced_or_not():
    mixer, x = SPAM(6), torch.randn(1, 6, 5, 7)
    plain = fx.symbolic_trace(mixer)
    assert torch.allclose(plain(x), mixer(x), atol=1e-6)
    before = mixer(x)
    mixer.conv_row = Adapter(mixer.conv_row)
    after = mixer(x)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(fx.symbolic_trace(mixer)(x), after, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_norm_of_frozen_maps_has_gradients(layout, process):
    """In a process of its own: torch up to 2.13 ended it where maps lie in channels_last."""

    def differ() -> int:
        norm, x = MapNorm(8), torch.randn(2, 8, 5, 7).contiguous(memory_format=layout)
        norm(x).square().sum().backward()
        ours = norm.weight.grad.clone()
        norm.weight.grad = None
        norm(x.clone().requires_grad_()).square().sum().backward()
        return int(not torch.allclose(ours, norm.weight.grad, rtol=1e-4))

    assert process(differ).wait() == (0, "", "")


def test_a_block_diagonal_product_is_a_grouped_one():
    layer, x = GroupedPointwiseConv(12, 24, groups=3), torch.randn(2, 12, 5, 7)
    full = block_diagonal(layer.weight, 3)
    assert full.shape == (24, 12, 1, 1)
    torch.testing.assert_close(nn.functional.conv2d(x, full), layer(x))
    ours = torch.autograd.grad(nn.functional.conv2d(x, full).square().sum(), layer.weight)
    theirs = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    torch.testing.assert_close(ours, theirs)
