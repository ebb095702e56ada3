"""Spectra against numpy, by hand, and by their laws."""

import numpy as np
import pytest
import torch

from spanets.analysis import (
    SpectrumStatistics,
    log_amplitude,
    profile,
    profile_frequencies,
    relative_log_amplitude,
    spectrum_map,
)

SIZES = [(8, 8), (7, 7), (6, 10), (9, 4), (1, 5), (14, 14)]


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_log_amplitude_is_numpys(size):
    x = maps(2, 3, *size)
    spectrum = np.fft.fftshift(np.fft.fft2(x.numpy()), axes=(-2, -1))
    expected = np.log(np.abs(spectrum) + 1e-6).mean(1)
    np.testing.assert_allclose(log_amplitude(x).numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_parseval(size):
    """The energy of a map is that of its spectrum: amplitudes are those of an unnormalized FFT."""
    x = maps(1, 1, *size)
    energy = log_amplitude(x, epsilon=0.0).exp().square().sum() / (size[0] * size[1])
    torch.testing.assert_close(energy, x.square().sum(), rtol=1e-10, atol=0)


def test_diagonal_by_hand():
    spectrum = torch.arange(36.0).reshape(6, 6)
    assert profile(spectrum).tolist() == [21, 28, 35]  # (3, 3), (4, 4), (5, 5)
    odd = torch.arange(25.0).reshape(5, 5)
    assert profile(odd).tolist() == [12, 18, 24]
    with pytest.raises(ValueError, match="a 4x6 spectrum has no diagonal; use 'radial'"):
        profile(torch.zeros(4, 6))


def test_radial_by_hand():
    spectrum = torch.zeros(5, 5)
    spectrum[2, 2] = 7
    spectrum[1, 2] = spectrum[3, 2] = 8
    values = profile(spectrum, "radial")
    # 8 bins round to a distance of 1: the four neighbours and, at √2, the four corners.
    assert values.tolist() == pytest.approx([7, 2, 0])
    constant = profile(torch.full((2, 6, 11), 3.0), "radial")
    torch.testing.assert_close(constant, torch.full((2, 4), 3.0))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (6, 10), (9, 4)])
@pytest.mark.parametrize("kind", ["diagonal", "radial"])
def test_frequencies_are_those_of_the_samples(height, width, kind):
    if kind == "diagonal" and height != width:
        pytest.skip("no diagonal")
    frequencies = profile_frequencies(height, width, kind)
    assert len(frequencies) == profile(torch.zeros(height, width), kind).shape[-1]
    assert frequencies[0] == 0
    if kind == "diagonal":
        assert frequencies[-1] == ((height - 1) // 2) / (height / 2)  # even: short of Nyquist
    assert profile_frequencies(height, width, kind, published=True)[-1] == 1


def test_relative_amplitude_of_a_wave():
    """A cosine along the diagonal stands out at its frequency alone."""
    i = torch.arange(16.0, dtype=torch.float64)
    x = 1 + torch.cos(2 * torch.pi * 3 * (i[:, None] + i[None, :]) / 16)
    values = relative_log_amplitude(x[None, None])[0]
    assert values[0] == 0
    assert values[3] == pytest.approx(np.log(0.5), abs=1e-4)  # half the constant's amplitude
    others = [k for k in range(8) if k not in (0, 3)]
    assert values[others].max() < -10


def test_spectrum_map_is_the_mean():
    x = maps(4, 3, 8, 8)
    torch.testing.assert_close(spectrum_map(x), log_amplitude(x).mean(0))


@pytest.mark.parametrize("kind", ["diagonal", "radial"])
def test_streaming_equals_the_whole_in_any_order(kind):
    x = maps(11, 4, 10, 10)
    whole, parts = SpectrumStatistics(kind), SpectrumStatistics(kind)
    whole("a", x)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(2))
    for batch in x[order].split([1, 4, 6]):
        parts("a", batch)
    expected = relative_log_amplitude(x, kind).numpy()
    for result in (whole.results()["a"], parts.results()["a"]):
        np.testing.assert_allclose(result["mean"], expected.mean(0), atol=1e-12)
        band = 1.96 * expected.std(0, ddof=1) / np.sqrt(11)
        np.testing.assert_allclose(result["high"] - result["mean"], band, atol=1e-12)
        np.testing.assert_allclose(result["spectrum"], log_amplitude(x).mean(0).numpy(), atol=1e-12)
        assert result["images"] == 11


def test_memory_does_not_grow_with_the_images():
    statistics = SpectrumStatistics()

    def held() -> int:
        moments = [*statistics.profiles.values(), *statistics.spectra.values()]
        return sum(np.asarray(m.mean).nbytes + np.asarray(m.squares).nbytes for m in moments)

    statistics("a", maps(2, 3, 8, 8))
    first = held()
    for seed in range(5):
        statistics("a", maps(50, 3, 8, 8, seed=seed))
    assert held() == first


def test_mixed_sizes_are_refused():
    statistics = SpectrumStatistics()
    statistics("a", maps(2, 3, 8, 8))
    with pytest.raises(ValueError, match="a: maps of 6x6 after 8x8; give images of one size"):
        statistics("a", maps(2, 3, 6, 6))
