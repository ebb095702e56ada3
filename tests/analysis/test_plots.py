"""Figures show the arrays that they are given, as they are and on the scales that they say."""

import numpy as np
import pytest

from spanets.analysis import plots

pytest.importorskip("matplotlib")


def row(count: int, slope: float) -> dict[str, np.ndarray]:
    mean = -slope * np.arange(count)
    frequencies = np.arange(count) / count
    return {"frequencies": frequencies, "mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def test_families_share_the_vertical_scale():
    models = {"a": {"x": row(7, 1.0), "y": row(4, 2.0)}, "b": {"z": row(3, 9.0)}}
    figure = plots.plot_families(models)
    first, second, *_ = figure.axes
    assert first.get_ylim() == second.get_ylim()
    for axes, modules in zip((first, second), models.values(), strict=True):
        assert len(axes.lines) == len(modules)
        for line, given in zip(axes.lines, modules.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), given["frequencies"])
            np.testing.assert_array_equal(line.get_ydata(), given["mean"])


def test_spectra_and_responses_share_the_colour_scale():
    arrays = {"a": np.arange(12.0).reshape(3, 4), "b": -np.ones((5, 5))}
    limits = [axes.images[0].get_clim() for axes in plots.plot_spectra(arrays).axes[:2]]
    assert limits == [(-1, 11)] * 2
    gains = {name: np.abs(array) for name, array in arrays.items()}
    figure = plots.plot_responses(gains, top=20.0)
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(0, 20)] * 2


@pytest.mark.parametrize(("side", "left", "right"), [(4, -1.25, 0.75), (5, -1.0, 1.0)])
def test_bins_are_centred_on_their_frequencies(side, left, right):
    """Four bins lie at -1, -1/2, 0 and 1/2; five at -4/5, -2/5, 0, 2/5 and 4/5."""
    axes = plots.plot_spectra({"a": np.zeros((side, side))}).axes[0]
    assert axes.images[0].get_extent() == pytest.approx([left, right, right, left])


def test_sensitivity_is_drawn_at_its_frequencies_from_zero():
    rates = np.arange(6.0).reshape(2, 3)
    rows, columns = {"a": np.array([-1.0, 0.0])}, {"a": np.array([-1.0, 0.0, 1.0])}
    axes = plots.plot_sensitivity({"a": rates}, rows, columns, "error rate").axes[0]
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array(), rates)
    assert mesh.get_clim() == (0, 5)
    assert axes.get_xlim() == (-1.5, 1.5)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # as images: negative frequencies on top
    still = plots.plot_sensitivity({"a": 0 * rates}, rows, columns, "error rate").axes[0]
    assert still.collections[0].get_clim() == (0, 1)


def test_bands_and_windows():
    accuracy = np.array([0.5, 0.75, 1.0])
    curve = {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy}
    figure = plots.plot_bands(
        {"a": {"low_pass": curve, "high_pass": curve, "clean": 0.9}}, [0, 0.5, 1.4], "accuracy"
    )
    for axes in figure.axes:
        line, clean = axes.lines
        np.testing.assert_array_equal(line.get_ydata(), accuracy)
        assert set(clean.get_ydata()) == {0.9}
    figure = plots.plot_windows((3, 5), {"attention": [0.3, 0.2], "convolution": [1.0, 0.9]})
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.3, 0.2], [1.0, 0.9]]


def test_fields_have_a_floor():
    field = np.array([[0.0, 1.0], [0.1, 1e-9]])
    (image,) = plots.plot_field({"a": field}).axes[0].images
    np.testing.assert_array_equal(image.get_array(), [[1e-5, 1.0], [0.1, 1e-5]])


def test_figures_are_written_as_png_and_svg(tmp_path):
    written = plots.save_figure(plots.plot_depth({"a": [1.0, 2.0]}), tmp_path / "name.with.dots")
    assert [path.name for path in written] == ["name.with.dots.png", "name.with.dots.svg"]
    first = written[1].read_bytes()
    plots.save_figure(plots.plot_depth({"a": [1.0, 2.0]}), tmp_path / "name.with.dots")
    assert len(written[1].read_bytes()) == len(first)
