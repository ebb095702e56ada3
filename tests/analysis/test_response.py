"""Known filters are recovered."""

import pytest
import torch
import torch.nn.functional as F

from spanets.analysis import (
    band_pass,
    effective_receptive_field,
    fourier_basis,
    frequency_response,
    impulse_response,
    perturb,
)
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


def test_a_module_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match="maps 8x8 to 4x4; a response needs the same size"):
        frequency_response(lambda x: F.avg_pool2d(x, 2), maps(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"must be \(1, C, H, W\)"):
        frequency_response(lambda x: x, maps(2, 1, 8, 8))


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_fourier_images_are_one_frequency_of_unit_norm(size):
    for u, v in [(0, 0), (1, 2), (-2, 1), (3, 0)]:
        image = fourier_basis(u, v, *size)
        assert image.norm() == pytest.approx(1)
        amplitude = torch.fft.fft2(image).abs()
        loud = {tuple(index) for index in (amplitude > 1e-9).nonzero().tolist()}
        height, width = size
        assert loud == {(u % height, v % width), (-u % height, -v % width)}


def test_perturbations_have_their_norm_and_random_signs():
    images = maps(8, 3, 6, 6)
    added = perturb(images, 1, 2, 0.5, torch.Generator().manual_seed(0)) - images
    norms = added.flatten(2).norm(dim=2)
    torch.testing.assert_close(norms, torch.full_like(norms, 0.5))
    signs = (added / (0.5 * fourier_basis(1, 2, 6, 6))).mean((2, 3)).round()
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}


def test_bands_add_up_and_do_not_overlap():
    x = maps(2, 3, 9, 12).float()
    low, high = band_pass(x, 0, 0.5), band_pass(x, 0.500001, 2)
    torch.testing.assert_close(low + high, x)
    torch.testing.assert_close(band_pass(low, 0.500001, 2), torch.zeros_like(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(band_pass(x, 0, 2), x)


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
