"""Waves and bands are what they are said to be, and answers to them depend on nothing else."""

from math import sqrt

import pytest
import torch
from torch import nn

from spanets.analysis import (
    band_pass,
    band_variants,
    compare_answers,
    fourier_basis,
    frequency_grid,
    perturb,
    wave_variants,
)


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


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


def test_band_edges_belong_to_the_band():
    """The corner of an even spectrum lies at √2 exactly, and rounding must not lose it."""
    x = maps(1, 1, 8, 8).float()
    torch.testing.assert_close(band_pass(x, 0.0, sqrt(2)), x)
    corner = band_pass(x, sqrt(2), 2.0)
    assert torch.fft.fft2(corner).abs().gt(1e-3).nonzero().tolist() == [[0, 0, 4, 4]]


def test_filters_keep_the_mean_and_meet_at_the_whole():
    images = maps(2, 3, 10, 10).abs().float()
    cutoffs = (0.0, 0.5, sqrt(2))
    low0, low, all_low, all_high, high, high_end = band_variants(images, cutoffs)
    for variant in (low0, low, high, high_end):
        torch.testing.assert_close(variant.mean((2, 3)), images.mean((2, 3)))
    for whole in (all_low, all_high):
        torch.testing.assert_close(whole, images)
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(low0, flat)
    # What lies exactly at the cut-off is in both.
    ring = band_pass(images, 0.5, 0.5)
    torch.testing.assert_close(low + high - flat - ring, images)


@pytest.mark.parametrize(("height", "width", "count"), [(8, 8, 5), (9, 6, 7), (4, 4, 99)])
def test_a_grid_has_every_real_frequency_once(height, width, count):
    grid = frequency_grid(height, width, count)
    assert grid.rows[0] == -grid.rows[-1] == -(height // 2)
    assert 0 in grid.rows
    assert grid.index.shape == (len(grid.rows), len(grid.columns))
    assert len(set(grid.pairs)) == len(grid.pairs) == grid.index.max() + 1
    for i, u in enumerate(grid.rows):
        for j, v in enumerate(grid.columns):
            wave = fourier_basis(*grid.pairs[grid.index[i, j]], height, width)
            torch.testing.assert_close(wave, fourier_basis(u, v, height, width))
    if count == 99:
        assert len(grid.rows) == height + 1  # minus and plus Nyquist are the same wave


@pytest.mark.parametrize("count", [4, 1])
def test_grids_without_an_origin_are_refused(count):
    with pytest.raises(ValueError, match=f"a side is {count}, must be odd, from 3 up"):
        frequency_grid(8, 8, count)


def test_signs_do_not_depend_on_the_batches():
    images, pairs = maps(5, 3, 6, 6), [(0, 1), (2, 3)]
    whole = torch.stack(list(wave_variants(images, pairs, 0.5)))
    parts = [wave_variants(images[a:b], pairs, 0.5, range(a, b)) for a, b in ((0, 2), (2, 5))]
    torch.testing.assert_close(torch.cat([torch.stack(list(p)) for p in parts], 1), whole)
    assert not torch.equal(whole, torch.stack(list(wave_variants(images, pairs, 0.5, seed=1))))
    norms = (whole - images).flatten(3).norm(dim=3)
    torch.testing.assert_close(norms, torch.full_like(norms, 0.5))


class Horizontal(nn.Module):
    """Class 1 where one horizontal frequency is loud; nothing else moves it."""

    def forward(self, images):
        wave = fourier_basis(0, 2, *images.shape[-2:]).to(images)
        loud = (images * wave).sum((1, 2, 3)).abs()
        return torch.stack([torch.full_like(loud, 0.5), loud], 1)


def test_the_heat_map_finds_what_a_model_looks_at():
    images, grid = torch.full((4, 1, 8, 8), 0.5), frequency_grid(8, 8, 5)
    answers = compare_answers(Horizontal(), images, wave_variants(images, grid.pairs, 1.0))
    error = answers.wrong.mean(0)[grid.index]
    expected = torch.zeros(5, 5)
    expected[2, [1, 3]] = 1  # rows and columns: -4, -2, 0, 2, 4
    torch.testing.assert_close(error, expected)
    assert answers.clean_wrong.sum() == 0
    assert answers.change.mean(0)[grid.index][2, 1] > 1
    torch.testing.assert_close(answers.change.mean(0)[grid.index] * (1 - expected), 0 * expected)


def test_right_and_wrong_are_the_labels_where_there_are_any():
    images = torch.full((3, 1, 8, 8), 0.5)
    answers = compare_answers(Horizontal(), images, [images], torch.tensor([0, 1, 0]))
    assert answers.wrong.tolist() == [[0], [1], [0]]
    assert answers.clean_wrong.tolist() == [0, 1, 0]


def test_of_maps_the_change_is_told_alone():
    images = torch.rand(2, 3, 6, 6)
    answers = compare_answers(nn.Conv2d(3, 2, 1, bias=False), images, [images * 1.5, images])
    assert answers.wrong is None
    torch.testing.assert_close(answers.change, torch.tensor([[0.5, 0.0]] * 2))
