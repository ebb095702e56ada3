"""SPAM of signals and volumes, against a slow reference and against SPAM of maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.mixers import BALANCES, SPAM, SPAM1d, SPAM3d
from spanets.spectral import RING, low_frequency_mask_nd

# Float64 rounding through five layers of some channels and 7 taps; outputs are of size one.
EXACT = 1e-10

MIXERS = [(SPAM1d, (9,)), (SPAM1d, (12,)), (SPAM3d, (4, 5, 6)), (SPAM3d, (3, 1, 7))]


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make(kind: type[nn.Module], dim: int, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return kind(dim, **arguments, dtype=torch.float64)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=EXACT)


@pytest.mark.parametrize(("kind", "size"), MIXERS)
@pytest.mark.parametrize("radius", [1, 2])
def test_mixer_is_the_reference(kind, size, radius):
    """Eq. 19 gate by gate, with whole transforms."""
    mixer, x = make(kind, 7, kernel_size=5, radius=radius), maps(2, 7, *size)
    dims = len(size)
    conv, axes = (F.conv1d if dims == 1 else F.conv3d), tuple(range(-dims, 0))
    hidden = conv(x, mixer.proj_in.weight, mixer.proj_in.bias)
    for layer in mixer.convs:
        taps = layer.weight.shape[2:]
        assert sorted(taps) == [1] * (dims - 1) + [5]
        padding = [n // 2 for n in taps]
        hidden = conv(hidden, layer.weight, layer.bias, padding=padding, groups=7)
    context, start = 0, 0
    for part, balance in zip(hidden.chunk(3, 1), BALANCES, strict=True):
        mask = low_frequency_mask_nd(size, radius, balance, RING, torch.float64)
        spectrum = torch.fft.fftshift(torch.fft.fftn(part, dim=axes), dim=axes) * mask
        pooled = torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=axes), dim=axes).real
        weight = mixer.proj_context.weight[:, start : start + part.shape[1]]
        context, start = context + conv(pooled, weight), start + part.shape[1]
    bias = mixer.proj_context.bias.reshape(-1, *[1] * dims)
    out = conv(hidden * (context + bias), mixer.proj_out.weight, mixer.proj_out.bias)
    assert_close(mixer(x), out)


def test_signals_are_maps_of_height_one():
    """SPAM's second convolution sees one row: its centre tap scales, so it is set to 1 here."""
    line, flat = make(SPAM1d, 7), make(SPAM, 7)
    with torch.no_grad():
        for ours, theirs in [
            (flat.proj_in, line.proj_in),
            (flat.conv_row, line.convs[0]),
            (flat.proj_out, line.proj_out),
        ]:
            ours.weight.copy_(theirs.weight.reshape(ours.weight.shape))
            ours.bias.copy_(theirs.bias)
        flat.conv_column.weight.copy_(torch.tensor([0, 0, 0, 1, 0, 0, 0])[:, None])
        flat.conv_column.bias.zero_()
        flat.context.proj.weight.copy_(line.proj_context.weight[..., None])
        flat.context.bias.zero_()[0] = line.proj_context.bias
    x = maps(2, 7, 11)
    assert_close(line(x), flat(x[:, :, None])[:, :, 0])


@pytest.mark.parametrize(("kind", "size"), MIXERS)
def test_constant_maps_stay_constant_and_sizes_alternate(kind, size):
    """With one tap there is no border; the context is that of the balances alone."""
    mixer = make(kind, 6, kernel_size=1)
    flat = torch.ones(1, 6, *size).double()
    out = mixer(flat).flatten(2)
    assert_close(out, out[..., :1].expand_as(out))
    hidden = mixer.convs(mixer.proj_in(flat))
    balance = torch.tensor(BALANCES, dtype=torch.float64).repeat_interleave(2)
    assert_close(mixer.filter(hidden), hidden * balance.reshape(-1, *[1] * len(size)))
    other = maps(1, 6, *[n + 1 for n in size])
    first = mixer(other)
    mixer(flat)
    assert_close(mixer(other), first)


@pytest.mark.parametrize(("kind", "size"), MIXERS)
@pytest.mark.parametrize("learn", [None, "channel"])
def test_every_parameter_learns(kind, size, learn):
    mixer = make(kind, 6, learn_balance=learn, learn_ring=learn is not None)
    x = maps(3, 6, *size)
    mixer(x).square().sum().backward()
    assert all(value.grad.any() for value in mixer.parameters())
    assert_close(mixer(x), torch.cat([mixer(x[i : i + 1]) for i in range(3)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "kernel_size is 4, must be odd"),
        ({"radius": 0}, "radius is 0, must be positive"),
        ({"radius": float("inf")}, "radius is inf, must be positive and finite"),
        ({"balances": ()}, "0 balances for 6 channels, allowed: 1 to 6"),
        ({"balances": (0.5,) * 4}, "6 channels do not split into 4 gates"),
        ({"learn_balance": "image"}, "learn_balance is 'image', allowed: None, gate, channel"),
    ],
)
@pytest.mark.parametrize("kind", [SPAM1d, SPAM3d])
def test_errors(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(6, **arguments)
