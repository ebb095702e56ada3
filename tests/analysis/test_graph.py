"""Graph spectra against torch and against the table that was computed independently."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spanets.analysis.graph import (
    attention_matrix,
    combinatorial_modes,
    convolution_matrix,
    graph_spectrum,
    grid_adjacency,
    normalized_modes,
    uniform_matrix,
    window_adjacency,
)

SIDE = 14


@pytest.mark.parametrize(("size", "height", "width"), [(3, 5, 7), (5, 4, 4), (7, 6, 3)])
def test_convolution_matrix_is_conv2d(size, height, width):
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(size, size)), rng.normal(size=(height, width))
    ours = convolution_matrix(kernel, height, width) @ x.ravel()
    theirs = F.conv2d(
        torch.from_numpy(x)[None, None], torch.from_numpy(kernel)[None, None], padding=size // 2
    )
    np.testing.assert_allclose(ours, theirs.numpy().ravel(), atol=1e-12)


def test_attention_rows_sum_to_one_and_stay_in_the_window():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 30, 8))
    for adjacency in (None, window_adjacency(5, 6, 3)):
        matrix = attention_matrix(query, key, adjacency)
        np.testing.assert_allclose(matrix.sum(1), 1)
        if adjacency is not None:
            assert not matrix[(adjacency == 0) & ~np.eye(30, dtype=bool)].any()
    scores = query @ key.T / np.sqrt(8)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(attention_matrix(query, key), expected)


def test_windows():
    assert window_adjacency(4, 5, 3).sum(1).tolist()[:3] == [3, 5, 5]
    whole = window_adjacency(4, 5, None)
    assert np.array_equal(whole, 1 - np.eye(20))
    assert np.array_equal(window_adjacency(4, 5, 9), whole)  # k ≥ 2·max(H, W) - 1
    with pytest.raises(ValueError, match="must be odd and at least 3"):
        window_adjacency(4, 4, 4)


def test_modes():
    modes = combinatorial_modes(grid_adjacency(4, 5))
    assert modes.values[0] == pytest.approx(0, abs=1e-12)
    assert np.ptp(modes.vectors[:, 0]) == 0
    modes = normalized_modes(window_adjacency(4, 5, 3))
    assert modes.values[0] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(modes.vectors.T @ modes.vectors, np.eye(20), atol=1e-12)


def test_a_laplacian_kernel_is_high_pass():
    kernel = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], dtype=float)
    modes = combinatorial_modes(grid_adjacency(SIDE, SIDE))
    spectrum = graph_spectrum(convolution_matrix(kernel, SIDE, SIDE), modes)
    assert spectrum.high_pass_ratio == pytest.approx(1.87, abs=5e-3)  # as it was printed


WINDOWS = (3, 5, 7, 9, 13, None)


@pytest.mark.parametrize(
    ("size", "expected"), list(zip(WINDOWS, (0.235, 0.113, 0.069, 0.042, 0.027, 0.0), strict=True))
)
def test_uniform_support_on_its_own_modes(size, expected):
    """The table's first row."""
    adjacency = window_adjacency(SIDE, SIDE, size)
    spectrum = graph_spectrum(uniform_matrix(adjacency), normalized_modes(adjacency))
    assert np.abs(spectrum.profile[1:]).mean() == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("size", "share", "ratio"),
    [
        (3, 0.069, 0.353),
        (5, 0.026, 0.254),
        (7, 0.015, 0.204),
        (9, 0.011, 0.168),
        (13, 0.008, 0.136),
    ],
)
def test_attention_is_low_pass_at_every_window(size, share, ratio):
    """The table's rows of Gaussian attention, d = 32: within sampling error."""
    rng = np.random.default_rng(0)
    adjacency = window_adjacency(SIDE, SIDE, size)
    modes = normalized_modes(adjacency)
    fixed = combinatorial_modes(grid_adjacency(SIDE, SIDE))
    shares, ratios = [], []
    for _ in range(6):
        query, key = rng.normal(size=(2, SIDE * SIDE, 32))
        operator = attention_matrix(query, key, adjacency)
        assert graph_spectrum(operator, modes).high_pass_ratio < 1
        spectrum = graph_spectrum(operator, fixed)
        shares.append(spectrum.thirds()[2])
        ratios.append(spectrum.gain_ratio)
    assert np.mean(shares) == pytest.approx(share, rel=0.25)
    assert np.mean(ratios) == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("size", WINDOWS[:-1])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.25, 1.0), (0.5, 12**-0.5)])
def test_a_convolutions_gain_follows_the_mean_of_its_kernel(size, mean, deviation):
    """The rule behind the table: γ_high / γ_DC is c / √(m + c²), and 1 of a kernel without mean."""
    rng, fixed = np.random.default_rng(0), combinatorial_modes(grid_adjacency(SIDE, SIDE))
    kernels = [rng.normal(mean, deviation, size=(size, size)) for _ in range(60)]
    spectra = [graph_spectrum(convolution_matrix(k, SIDE, SIDE), fixed) for k in kernels]
    top = np.mean([np.mean(s.gain[-(SIDE**2 // 3) :] ** 2) for s in spectra])
    ratio = np.sqrt(top / np.mean([s.gain[0] ** 2 for s in spectra]))
    expected = 1 if mean == 0 else deviation / np.hypot(size * mean, deviation)
    # 60 kernels: the mean of so many squares is known to some 15 %, and windows as wide as the
    # grid lose taps to the border, of which the rule knows nothing.
    assert ratio == pytest.approx(expected, rel=0.35)
    if mean == 0:  # as likely high-pass as low-pass
        assert 0.35 < np.mean([s.high_pass_ratio > 1 for s in spectra]) < 0.8
