"""Builds networks that compute like the released code, with the same function and weights.

Each starts from a model of this package and replaces its mixers.
"""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spanets  # noqa: F401 (registers the models)
from spanets.mixers import SPAM, Attention, SpectralAdaptiveMixer, SpectralContext, chunk_sizes
from spanets.spectral import low_frequency_mask, resize_half_spectrum


class ReleasedContext(nn.Module):
    """The context with complex FFTs, gate by gate; the masks are buffers, as in the release."""

    def __init__(self, context: SpectralContext, size: int) -> None:
        super().__init__()
        self.sizes = chunk_sizes(context.proj.in_channels, context.gates)
        self.weight, self.bias, pool = context.proj.weight, context.bias, context.filter
        masks = [low_frequency_mask(size, size, pool.radius, b) for b in pool.balances]
        self.register_buffer("masks", torch.stack(masks)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        parts = zip(x.split(self.sizes, 1), self.weight.split(self.sizes, 1), strict=True)
        for i, (part, weight) in enumerate(parts):
            spectrum = torch.fft.fftshift(torch.fft.fft2(part, dim=(-2, -1)), dim=(-2, -1))
            spectrum = torch.fft.ifftshift(spectrum * self.masks[i], dim=(-2, -1))
            pooled = torch.fft.ifft2(spectrum, dim=(-2, -1)).real
            total = total + F.conv2d(pooled, weight, self.bias[i])
        return total


def released_form(name: str, size: int = 224) -> nn.Module:
    """Builds a network that computes like the released code, with the default's weights."""
    model = timm.create_model(name)
    for i, stage in enumerate(model.stages):
        for module in stage.modules():
            if isinstance(module, SPAM):
                module.context = ReleasedContext(module.context, size // (4 * 2**i))
    return model


class HeadByHead(nn.Module):
    """SPANetV2's mixer with a real FFT, a gain and an inverse for each head."""

    def __init__(self, mixer: SpectralAdaptiveMixer) -> None:
        super().__init__()
        assert mixer.merge.merge == "interleaved"
        self.mixer = mixer
        self.boundary_layers = mixer.boundary_layers

    def forward(self, x: Tensor) -> Tensor:
        mixer = self.mixer
        query = F.gelu(mixer.query(x))
        logits = resize_half_spectrum(mixer.filter.logits, *x.shape[-2:])
        heads = []
        for i, part in enumerate(mixer.value(x).chunk(4, 1)):
            local = mixer.local_convs[i](part)
            spectrum = torch.fft.rfft2(local, norm="ortho") * logits[i::4].sigmoid()
            heads.append(torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho"))
        context = torch.stack(heads, 2).flatten(1, 2)
        return mixer.proj_out(query * mixer.proj(context))


class WrittenOutAttention(nn.Module):
    """Attention as two products and a softmax."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        self.boundary_layers = attention.boundary_layers

    def forward(self, x: Tensor) -> Tensor:
        attention = self.attention
        query, key, value = attention.qkv(x).chunk(3, 1)
        tokens = [attention._tokens(part) for part in (query, key, value)]
        weights = (tokens[0] * attention.head_dim**-0.5) @ tokens[1].mT
        mixed = (weights.softmax(-1) @ tokens[2]).transpose(2, 3).reshape(x.shape)
        if attention.local_conv is not None:
            mixed = mixed + attention.local_conv(value)
        return attention.proj(mixed)


def head_by_head(name: str, written_out: bool = False) -> nn.Module:
    """Builds a SPANetV2 with filters head by head, optionally with explicit attention."""
    model = timm.create_model(name)
    for stage in model.stages:
        for block in stage.blocks:
            if isinstance(block.token_mixer, SpectralAdaptiveMixer):
                block.token_mixer = HeadByHead(block.token_mixer)
            elif written_out:
                block.token_mixer = WrittenOutAttention(block.token_mixer)
    return model
