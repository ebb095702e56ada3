"""Attention against softmax written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn
from torch import Tensor

from spanets.mixers import Attention

EXACT = 1e-10


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def reference(mixer: Attention, x: Tensor) -> Tensor:
    """One head and one position after the other."""
    channels, (height, width) = x.shape[1], x.shape[2:]
    query, key, value = F.conv2d(x, mixer.qkv.weight).split(channels, 1)
    mixed = torch.empty_like(x)
    for start in range(0, channels, mixer.head_dim):
        part = slice(start, start + mixer.head_dim)
        for i in range(height):
            for j in range(width):
                scores = torch.einsum("bc,bchw->bhw", query[:, part, i, j], key[:, part])
                weights = (scores / math.sqrt(mixer.head_dim)).flatten(1).softmax(1)
                weights = weights.unflatten(1, (height, width))
                mixed[:, part, i, j] = torch.einsum("bhw,bchw->bc", weights, value[:, part])
    if mixer.local_conv is not None:
        kernel = mixer.local_conv.weight
        mixed += F.conv2d(value, kernel, padding=kernel.shape[-1] // 2, groups=channels)
    return F.conv2d(mixed, mixer.proj.weight)


@pytest.mark.parametrize("local_conv", [False, True])
def test_mathematics(local_conv):
    torch.manual_seed(0)
    mixer = Attention(8, head_dim=4, local_conv=local_conv, dtype=torch.float64)
    assert not any(name.endswith("bias") for name, _ in mixer.named_parameters())
    with torch.no_grad():
        for size in [(4, 4), (3, 5), (1, 1)]:
            x = maps(2, 8, *size)
            assert (mixer(x) - reference(mixer, x)).abs().max() < EXACT


def test_heads_of_32_by_default():
    assert Attention(64).head_dim == 32
    with pytest.raises(ValueError, match="48 channels do not split into heads of 32"):
        Attention(48)


def test_without_fused_attention_the_softmax_is_computed_here(monkeypatch):
    x = maps(2, 64, 5, 4)
    torch.manual_seed(0)
    fused = Attention(64, local_conv=True).double()
    set_fused_attn(False)
    try:
        plain = Attention(64, local_conv=True).double()
    finally:
        set_fused_attn(True)
    plain.load_state_dict(fused.state_dict())
    wanted = fused(x)
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    assert (plain(x) - wanted).abs().max() < EXACT
