"""Draws measurements: functions from arrays to matplotlib figures, without computation."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.errors import require
from spanets_runtime.figures import render
from spanets_runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

OUTCOMES = {
    "follows_low": ("-", "follow the low frequencies"),
    "follows_high": ("--", "follow the high frequencies"),
    "neither": (":", "follow neither"),
}
"""Line style and words for the answers to a conflict of frequencies."""


def plot_profiles(
    modules: Mapping[str, Mapping[str, Any]],
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> "Figure":
    """Draws relative log amplitude against frequency, one line per module, shallow to deep.

    Args:
        modules: Results by module, from `SpectrumStatistics.results`.
        title: Title of the figure.
        limits: Limits of the vertical axis, to give several figures one scale.
    """
    figure, axes = _figure(5.5, 4)
    _draw_profiles(axes, modules)
    axes.set_xlabel("frequency (fraction of Nyquist)")
    axes.set_ylabel("Δ log amplitude")
    axes.set_title(title)
    if limits is not None:
        axes.set_ylim(*limits)
    if len(modules) <= 16:
        axes.legend(fontsize=6, ncols=2)
    else:
        _depth_bar(figure, axes)
    return figure


def plot_families(models: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> "Figure":
    """Draws the relative log amplitude of several models side by side, on one scale.

    Args:
        models: Results by module (see `plot_profiles`), by title.
    """
    require("matplotlib", "analysis")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.9 + 2.6 * len(models), 3), layout="constrained")
    grid = figure.subplots(1, len(models), sharey=True, squeeze=False)
    for axes, (title, modules) in zip(grid.flat, models.items(), strict=True):
        _draw_profiles(axes, modules)
        axes.set_title(title, fontsize=8)
    figure.supxlabel("frequency (fraction of Nyquist)", fontsize=9)
    grid[0, 0].set_ylabel("Δ log amplitude")
    _depth_bar(figure, grid[0, -1])
    return figure


def _draw_profiles(axes: Any, modules: Mapping[str, Mapping[str, Any]]) -> None:
    for colour, (name, row) in zip(_colours(len(modules)), modules.items(), strict=True):
        axes.plot(row["frequencies"], row["mean"], color=colour, label=name)
        axes.fill_between(
            row["frequencies"], row["low"], row["high"], color=colour, alpha=0.2, linewidth=0
        )
    axes.set_xlim(0, 1)


def plot_depth(models: Mapping[str, Sequence[float]]) -> "Figure":
    """Draws the last sample of the relative log amplitude against depth, one line per model.

    Args:
        models: Last samples from shallow to deep, by model.
    """
    figure, axes = _figure(5.5, 4)
    for name, values in models.items():
        depth = np.linspace(0, 1, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(depth, values, marker="o", markersize=3, label=name)
    axes.set_xlabel("normalized depth")
    axes.set_ylabel("Δ log amplitude at the highest frequency")
    axes.legend(fontsize=8)
    return figure


def plot_windows(windows: Sequence[int], ratios: Mapping[str, Sequence[float]]) -> "Figure":
    """Draws the effect of the window size on operators on the graph of tokens (`analysis.graph`).

    Args:
        windows: Window sides, in tokens.
        ratios: Values such as `GraphSpectrum.gain_ratio`, one for each window, by operator.
    """
    figure, axes = _figure(7, 3.4)
    for name, values in ratios.items():
        axes.plot(windows, values, marker="o", markersize=3, label=name)
    axes.set(xlabel="window (tokens a side)", ylabel="gain: rough modes over the smoothest")
    axes.set(xticks=windows, yscale="log")
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def plot_spectra(spectra: Mapping[str, Array], columns: int = 5) -> "Figure":
    """Draws centred log amplitudes side by side on one colour scale.

    Args:
        spectra: Log amplitudes (H, W), natural logarithm, by title.
        columns: Pictures per row.
    """
    return _sheet(
        spectra, columns, "viridis", "log amplitude", _shared_limits(list(spectra.values()))
    )


def plot_responses(
    gains: Mapping[str, Array], columns: int = 4, top: float | None = None
) -> "Figure":
    """Draws gains per frequency side by side on one colour scale from 0.

    Args:
        gains: Centred gains (H, W), by title.
        columns: Pictures per row.
        top: Upper end of the scale, to give several figures one scale; None means the largest gain.
    """
    highest = max(float(np.max(gain)) for gain in gains.values()) if top is None else top
    return _sheet(gains, columns, "magma", "gain", (0.0, highest))


def plot_sensitivity(
    rates: Mapping[str, Array],
    rows: Mapping[str, Array],
    columns: Mapping[str, Array],
    label: str,
) -> "Figure":
    """Draws Fourier heat maps side by side on one colour scale from 0 (Yin et al., 2019).

    Args:
        rates: Heat maps (R, S), by title.
        rows: Vertical frequencies (R,), as fractions of Nyquist, by title.
        columns: Horizontal frequencies (S,), as fractions of Nyquist, by title.
        label: Label of the colour scale.
    """
    figure, grid = _grid(len(rates), columns=4, scale=1.3)
    top = max(float(np.max(rate)) for rate in rates.values()) or 1.0
    image: Any = None
    for axes, (title, rate) in zip(grid.flat, rates.items(), strict=False):
        image = axes.pcolormesh(
            columns[title], rows[title], rate, cmap="viridis", vmin=0, vmax=top, shading="nearest"
        )
        axes.set(aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axes.invert_yaxis()
        axes.set_title(title, fontsize=8)
    figure.colorbar(image, ax=grid, label=label, shrink=0.8)
    figure.supxlabel("frequency (fraction of Nyquist)", fontsize=8)
    return figure


def plot_bands(
    curves: Mapping[str, Mapping[str, Any]], cutoffs: Sequence[float], label: str
) -> "Figure":
    """Draws the accuracy on low-passed and high-passed images.

    Args:
        curves: By title, "low_pass" and "high_pass", each with "accuracy", "low" and "high", and
            "clean", the accuracy on the original images.
        cutoffs: Cut-off frequencies, as fractions of Nyquist.
        label: Label of the vertical axis.
    """
    require("matplotlib", "analysis")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    grid = figure.subplots(1, 2, sharey=True)
    for axes, kind, kept in zip(grid, ("low_pass", "high_pass"), ("below", "above"), strict=True):
        for number, (title, row) in enumerate(curves.items()):
            line, colour = row[kind], f"C{number % 10}"
            axes.plot(cutoffs, line["accuracy"], marker="o", ms=3, color=colour, label=title)
            axes.fill_between(
                cutoffs, line["low"], line["high"], color=colour, alpha=0.2, linewidth=0
            )
            axes.axhline(row["clean"], color=colour, linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"cut-off: what lies {kept} is kept (fraction of Nyquist)", fontsize=8)
        axes.set_title(kind.replace("_", "-"), fontsize=9)
        axes.set_ylim(0, 1.02)
    grid[0].set_ylabel(label)
    grid[0].legend(fontsize=7)
    return figure


def plot_corruptions(models: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Draws the accuracy on corrupted images, from low-frequency corruptions to high ones.

    Args:
        models: By title, "kinds", each with "accuracy" and "centre_frequency", and "clean", the
            accuracy on the original images.
    """
    require("matplotlib", "analysis")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    first = next(iter(models.values()))["kinds"]
    order = sorted(first, key=lambda kind: first[kind]["centre_frequency"])
    for number, (title, row) in enumerate(models.items()):
        colour = f"C{number % 10}"
        accuracies = [row["kinds"][kind]["accuracy"] for kind in order]
        axes.plot(range(len(order)), accuracies, marker="o", ms=4, color=colour, label=title)
        axes.axhline(row["clean"], color=colour, linewidth=0.8, linestyle=":")
    names = [f"{kind.replace('_', ' ')} {first[kind]['centre_frequency']:.2f}" for kind in order]
    axes.set_xticks(range(len(order)), names, rotation=45, ha="right", fontsize=7)
    axes.set_xlabel("corruption, and the mean frequency of its change (fraction of Nyquist)")
    axes.set_ylabel("share of right answers")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7)
    return figure


def plot_reliance(models: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Draws the accuracy that is left without each cue, and whose frequencies answers follow.

    Args:
        models: By title, "suppressed", and "conflict", both as `spanets analyze` records them.
    """
    require("matplotlib", "analysis")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(name for row in models.values() for name in row["suppressed"]))
    for number, (title, row) in enumerate(models.items()):
        colour = f"C{number % 10}"
        found = {name: values["relative"] for name, values in row["suppressed"].items()}
        drawn = {name: values for name, values in found.items() if values["low"] is not None}
        middles = np.array([values["accuracy"] for values in drawn.values()])
        edges = np.array([[values["low"], values["high"]] for values in drawn.values()])
        shift = 0.6 * ((number + 0.5) / len(models) - 0.5)
        left.errorbar(
            middles,
            [names.index(name) + shift for name in drawn],
            xerr=np.abs(edges.reshape(-1, 2).T - middles),
            fmt="o",
            ms=4,
            color=colour,
            label=title,
        )
        _draw_conflict(right, row["conflict"], colour)
    left.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    left.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    left.set_xlim(left=0)
    left.set_xlabel("accuracy, relative to whole images", fontsize=8)
    left.set_title("without a cue", fontsize=9)
    left.legend(fontsize=7)
    right.set_xlabel("cut-off (fraction of Nyquist)", fontsize=8)
    right.set_ylabel("share of answers", fontsize=8)
    right.set_ylim(0, 1.02)
    right.set_title("low frequencies of one image, high of another", fontsize=9)
    if right.lines:
        first = right.lines[: len(OUTCOMES)]  # of one model; the others have the same styles
        right.legend(first, [text for _, text in OUTCOMES.values()], fontsize=7)
    return figure


def _draw_conflict(axes: Any, curves: Mapping[str, Any], colour: str) -> None:
    for kind, (style, _) in OUTCOMES.items():
        if kind in curves:
            line, cutoffs = curves[kind], curves["cutoffs"]
            axes.plot(cutoffs, line["share"], linestyle=style, color=colour)
            axes.fill_between(
                cutoffs, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0
            )


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Writes a figure as PNG and SVG, each atomically.

    Args:
        figure: Figure from this module.
        path: Path without a suffix.

    Raises:
        UserError: the files cannot be written.
    """
    written = []
    for suffix in (".png", ".svg"):
        # No date, so that the same numbers give the same file.
        metadata = {"Date": None} if suffix == ".svg" else {}
        content = render(figure, suffix[1:], dpi=150, metadata=metadata)
        target = path.with_name(path.name + suffix)  # names may contain dots
        write_atomically(target, partial(_write, content=content))
        written.append(target)
    return written


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _figure(width: float, height: float) -> tuple["Figure", Any]:
    require("matplotlib", "analysis")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _colours(count: int) -> list[Any]:
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count)))


def _depth_bar(figure: "Figure", axes: Any) -> None:
    """Adds a colour bar in place of a legend with too many lines."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    mappable = ScalarMappable(Normalize(0, 1), ListedColormap(_colours(256)))
    bar = figure.colorbar(mappable, ax=axes, label="module")
    bar.set_ticks([0, 1], labels=["first", "last"])


def _shared_limits(arrays: Sequence[Array]) -> tuple[float, float]:
    return min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)


def _sheet(
    pictures: Mapping[str, Array],
    columns: int,
    colours: str,
    label: str,
    limits: tuple[float, float],
) -> "Figure":
    figure, grid = _grid(len(pictures), columns)
    image: Any = None
    for axes, (title, array) in zip(grid.flat, pictures.items(), strict=False):
        # Each pixel is a bin; the axes are fractions of Nyquist.
        image = axes.imshow(
            array, cmap=colours, vmin=limits[0], vmax=limits[1], extent=_extent(array)
        )
        axes.set_title(title, fontsize=8)
        axes.set_xticks([-1, 0, 1])
        axes.set_yticks([-1, 0, 1])
        left, right, bottom, top = _extent(array)
        axes.set(xlim=(left, right), ylim=(bottom, top))  # ticks would widen them
    figure.colorbar(image, ax=grid, label=label, shrink=0.8)
    figure.supxlabel("frequency (fraction of Nyquist)", fontsize=8)
    return figure


def _grid(count: int, columns: int, scale: float = 1.0) -> tuple["Figure", Any]:
    """Returns a figure with a grid of pictures; unused cells have no axes."""
    require("matplotlib", "analysis")
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    size = (0.8 + 2.2 * scale * columns, 2.4 * scale * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, grid


def _extent(array: Array) -> tuple[float, float, float, float]:
    """Returns the picture's edges in fractions of Nyquist, with bins centred on frequencies."""
    height, width = array.shape
    left, top = (-(n // 2) - 0.5 for n in (width, height))
    return (
        left / (width / 2),
        (left + width) / (width / 2),
        (top + height) / (height / 2),
        top / (height / 2),
    )


def plot_field(
    fields: Mapping[str, Array], label: str = "influence on the centre", columns: int = 4
) -> "Figure":
    """Draws receptive fields or impulse responses on one logarithmic scale.

    Args:
        fields: Fields (H, W) with largest value 1, by title.
        label: Label of the colour scale.
        columns: Pictures per row.
    """
    from matplotlib.colors import LogNorm

    figure, grid = _grid(len(fields), columns)
    image: Any = None
    for axes, (title, field) in zip(grid.flat, fields.items(), strict=False):
        image = axes.imshow(np.maximum(field, 1e-5), cmap="magma", norm=LogNorm(1e-5, 1))
        axes.set_title(title, fontsize=8)
        axes.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=grid, label=label, shrink=0.8)
    return figure
