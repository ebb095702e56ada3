"""Known filters are recovered."""

import pytest
import torch
import torch.nn.functional as F

from spanets.analysis import (
    effective_receptive_field,
    frequency_response,
    impulse_magnitude,
    impulse_response,
)
from spanets.mixers import SPAM
from spanets.spectral import low_frequency_mask, spectral_pool


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5)])
@pytest.mark.parametrize("radius", [1, 2])
def test_spectral_pooling_gives_its_mask(size, radius):
    response = frequency_response(lambda x: spectral_pool(x, radius, 0.8), maps(1, 3, *size))
    mask = low_frequency_mask(*size, radius, 0.8).double()
    # At the edge of an even size a bin may have a partner of another gain.
    inner = [slice(1, None) if n % 2 == 0 else slice(None) for n in size]
    torch.testing.assert_close(response.gain[*inner], mask[*inner], rtol=0, atol=1e-6)
    assert response.leakage[*inner].max() < 1e-6


def test_a_depthwise_convolution_gives_its_transfer_function():
    kernel, size = maps(1, 1, 3, 3), 16

    def circular(x):
        padded = F.pad(x, (1, 1, 1, 1), mode="circular")
        return F.conv2d(padded, kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1])

    response = frequency_response(circular, maps(1, 2, size, size))
    transfer = torch.fft.fftshift(torch.fft.fft2(kernel[0, 0], s=(size, size)).abs())
    torch.testing.assert_close(response.gain, transfer, rtol=0, atol=1e-8)
    assert response.leakage.max() < 1e-8


def test_a_global_mean_keeps_the_origin_alone():
    response = frequency_response(
        lambda x: x.mean((2, 3), keepdim=True).expand_as(x), maps(1, 2, 6, 6)
    )
    expected = torch.zeros(6, 6, dtype=torch.float64)
    expected[3, 3] = 1
    torch.testing.assert_close(response.gain, expected, rtol=0, atol=1e-8)


def test_bands_of_the_identity_and_of_a_low_pass():
    identity = frequency_response(lambda x: x, maps(1, 2, 9, 9)).bands()
    assert identity == pytest.approx({"low": 1, "middle": 1, "high": 1, "high_pass_ratio": 1})
    blur = frequency_response(lambda x: F.avg_pool2d(x, 3, 1, 1), maps(1, 2, 12, 12)).bands()
    assert blur["low"] > blur["middle"] > blur["high"]
    assert blur["high_pass_ratio"] < 0.5


def test_it_is_the_linear_part_at_a_point():
    point = torch.full((1, 1, 6, 6), 3.0, dtype=torch.float64)
    response = frequency_response(lambda x: x**2, point)
    torch.testing.assert_close(response.gain, torch.full((6, 6), 6.0, dtype=torch.float64))


def one_at_a_time(module, point, seed=0):
    """The definition, bin by bin: a random wave through the Jacobian, its spectrum by an FFT."""
    _, channels, height, width = point.shape
    generator = torch.Generator().manual_seed(seed)
    gain, leakage = (torch.zeros(height, width, dtype=torch.float64) for _ in range(2))
    for u in range(height):
        for v in range(width):
            mirrored = (-u % height, -v % width)
            if mirrored < (u, v):
                continue
            shift = torch.rand((), generator=generator, dtype=torch.float64)
            i = torch.arange(height).double()[:, None] * u / height
            j = torch.arange(width).double()[None, :] * v / width
            wave = (2 * torch.pi * (i + j + (0 if mirrored == (u, v) else shift))).cos()
            weights = torch.randn(channels, generator=generator, dtype=torch.float64)
            given = (weights[:, None, None] * wave / wave.norm())[None].to(point)
            out = torch.autograd.functional.jvp(module, point, given)[1]
            energy = torch.fft.fft2(out.double(), norm="ortho").abs().square().sum((0, 1))
            own = sum(energy[bin].item() for bin in {(u, v), mirrored})
            for bin in {(u, v), mirrored}:
                gain[bin] = (own / given.square().sum().item()) ** 0.5
                leakage[bin] = 1 - own / energy.sum().item()
    return (torch.fft.fftshift(x) for x in (gain, leakage))


@pytest.mark.parametrize("size", [(6, 6), (5, 4)])
@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_batches_of_waves_are_the_definition(size, batch_size):
    torch.manual_seed(0)
    mixer = SPAM(6).double().eval()
    point = maps(1, 6, *size)
    response = frequency_response(mixer, point, batch_size=batch_size)
    gain, leakage = one_at_a_time(mixer, point)
    # Float64 throughout: rounding alone is between them.
    torch.testing.assert_close(response.gain, gain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(response.leakage, leakage, rtol=1e-9, atol=1e-9)


def test_attention_is_low_pass():
    """With like queries and keys it takes the mean; fused attention has no forward mode."""

    def attention(x):
        tokens = x.flatten(2).mT  # B HW C
        same = torch.zeros_like(tokens)
        out = F.scaled_dot_product_attention(same, same, tokens)
        return out.mT.unflatten(2, x.shape[-2:])

    response = frequency_response(attention, maps(1, 2, 6, 6).float())
    expected = torch.zeros(6, 6, dtype=torch.float64)
    expected[3, 3] = 1
    torch.testing.assert_close(response.gain, expected, rtol=0, atol=1e-6)  # float32


def test_a_module_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match="maps 8x8 to 4x4; a response needs the same size"):
        frequency_response(lambda x: F.avg_pool2d(x, 2), maps(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"must be \(1, C, H, W\)"):
        frequency_response(lambda x: x, maps(2, 1, 8, 8))


def test_receptive_field_of_a_convolution_is_its_window():
    conv = torch.nn.Conv2d(2, 4, 5, padding=2)
    field = effective_receptive_field(conv, torch.randn(3, 2, 11, 11))
    assert field.max() == 1
    seen = (field > 0).nonzero()
    assert seen.min(0).values.tolist() == [3, 3]
    assert seen.max(0).values.tolist() == [7, 7]


def test_impulse_response_of_a_convolution_is_its_kernel():
    kernel = maps(1, 1, 3, 3)
    response = impulse_response(lambda x: F.conv2d(x, kernel, padding=1), maps(1, 1, 9, 9))
    torch.testing.assert_close(response[0, 3:6, 3:6], kernel[0, 0].flip(0, 1))


def test_bands_that_a_small_map_does_not_have():
    bands = frequency_response(lambda x: x, maps(1, 2, 2, 2)).bands()
    assert bands["middle"] is None
    assert bands["high_pass_ratio"] == 1


def test_magnitude_of_an_impulse_is_the_kernels():
    kernel = maps(6, 4, 3, 3)
    found = impulse_magnitude(lambda x: F.conv2d(x, kernel, padding=1), maps(1, 4, 7, 7))
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[2:5, 2:5] = kernel.flip(2, 3).norm(dim=0).mean(0)
    torch.testing.assert_close(found, expected)
    half = impulse_magnitude(lambda x: x * torch.arange(4.0)[:, None, None], maps(1, 4, 3, 3), 2)
    assert half[1, 1] == pytest.approx(1.5)  # of the first and the last channel
