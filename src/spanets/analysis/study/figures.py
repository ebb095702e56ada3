"""Figures of `spanets analyze`; models that are compared share one scale."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spanets.analysis import plots
from spanets.analysis.study.record import file_name
from spanets_runtime.figures import name_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Results = Mapping[str, Mapping[str, Any]]

Titles = Mapping[str, str]
"""Short names for figures, by model."""


def draw(results: Results, folder: Path) -> None:
    """Draws all measurements of all models."""
    figures: dict[str, Figure] = {}
    titles = make_titles(list(results))
    for key, drawn in DRAWN.items():
        rows = {source: row[key] for source, row in results.items() if key in row}
        if rows:
            figures |= drawn(rows, titles)
    for name, figure in figures.items():
        plots.save_figure(figure, folder / name)


def _amplitude(rows: Results, titles: Titles) -> dict[str, "Figure"]:
    means = [np.array(m["mean"]) for modules in rows.values() for m in modules.values()]
    low, high = min(m.min() for m in means), max(m.max() for m in means)
    margin = 0.05 * (high - low)
    limits = (low - margin, high + margin)
    figures = {
        f"{file_name(source)}_amplitude": plots.plot_profiles(modules, titles[source], limits)
        for source, modules in rows.items()
    }
    last = {
        titles[source]: [m["last"] for m in modules.values()] for source, modules in rows.items()
    }
    spectra = {
        f"{titles[source]}\n{name}": np.array(modules[name]["spectrum"])
        for source, modules in rows.items()
        for name in spread(list(modules), 4)
    }
    figures["depth"] = plots.plot_depth(last)
    figures["spectra"] = plots.plot_spectra(spectra, columns=4)
    return figures


def _response(rows: Results, _: Titles) -> dict[str, "Figure"]:
    gains = {
        source: {name: np.array(m["gain"]) for name, m in modules.items()}
        for source, modules in rows.items()
    }
    top = max(float(gain.max()) for modules in gains.values() for gain in modules.values())
    return {
        f"{file_name(source)}_response": plots.plot_responses(modules, top=top)
        for source, modules in gains.items()
    }


def _impulse(rows: Results, _: Titles) -> dict[str, "Figure"]:
    label = "response, relative to its largest"
    return {
        f"{file_name(source)}_impulse": plots.plot_field(
            {name: _to_one(np.array(magnitude)) for name, magnitude in modules.items()}, label
        )
        for source, modules in rows.items()
    }


def _to_one(magnitude: Any) -> Any:
    return magnitude / (magnitude.max() or 1.0)


def _receptive_field(rows: Mapping[str, Any], titles: Titles) -> dict[str, "Figure"]:
    fields = {titles[source]: np.array(field) for source, field in rows.items()}
    return {"receptive_field": plots.plot_field(fields)}


def _sensitivity(rows: Results, titles: Titles) -> dict[str, "Figure"]:
    """Returns one figure for the change of outputs and, for classifiers, one for errors."""
    figures = {}
    for key, label in (("error", "error rate"), ("change", "relative change of the output")):
        having = {source: row for source, row in rows.items() if key in row}
        if having:
            named = {_with_reference(titles[s], r, key): r for s, r in having.items()}
            figures[f"sensitivity_{key}"] = plots.plot_sensitivity(
                {name: np.array(row[key]) for name, row in named.items()},
                {name: _nyquist(row, "rows") for name, row in named.items()},
                {name: _nyquist(row, "columns") for name, row in named.items()},
                label,
            )
    return figures


def _with_reference(title: str, row: Mapping[str, Any], key: str) -> str:
    if key != "error":
        return title
    clean = f"{row['clean_error']:.2f} without a wave"
    return f"{title}\nagainst {row['reference']}; {clean}"


def _nyquist(row: Mapping[str, Any], key: str) -> Any:
    return np.array(row[key]) / (row["side"] / 2)


def _bands(rows: Results, titles: Titles) -> dict[str, "Figure"]:
    curves = {f"{titles[s]}, against {row['reference']}": row for s, row in rows.items()}
    cutoffs = next(iter(rows.values()))["cutoffs"]
    return {"bands": plots.plot_bands(curves, cutoffs, "share of right answers")}


def _corruptions(rows: Results, titles: Titles) -> dict[str, "Figure"]:
    curves = {f"{titles[s]}, against {row['reference']}": row for s, row in rows.items()}
    return {"corruptions": plots.plot_corruptions(curves)}


def _reliance(rows: Results, titles: Titles) -> dict[str, "Figure"]:
    curves = {f"{titles[s]}, against {row['reference']}": row for s, row in rows.items()}
    return {"reliance": plots.plot_reliance(curves)}


DRAWN = {
    "amplitude": _amplitude,
    "response": _response,
    "impulse": _impulse,
    "receptive_field": _receptive_field,
    "sensitivity": _sensitivity,
    "bands": _bands,
    "corruptions": _corruptions,
    "reliance": _reliance,
}


def spread(names: Sequence[str], count: int) -> list[str]:
    """Returns some names, evenly spread from the first to the last."""
    if len(names) <= count:
        return list(names)
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


def make_titles(sources: Sequence[str]) -> dict[str, str]:
    """Returns a short name for each source, no two of which are equal.

    That of a checkpoint is its file name with as many of its folders as tell it from the others,
    at least one.
    """
    folders = dict.fromkeys(sources, 1)
    while True:
        titles = {source: _title(source, count) for source, count in folders.items()}
        seen = Counter(titles.values())
        alike = [
            source
            for source, title in titles.items()
            if seen[title] > 1 and folders[source] < len(Path(source).parts)
        ]
        if not alike:
            # Two spellings of one path are left.
            return {s: t if seen[t] == 1 else _label(s) for s, t in titles.items()}
        for source in alike:
            folders[source] += 1


def _title(source: str, folders: int) -> str:
    path = Path(source)
    if path.suffix != ".ckpt":
        return _label(source)
    return _label(Path(*path.with_suffix("").parts[-1 - folders :]).as_posix())


def _label(name: str) -> str:
    return name_label(name, length=None)  # not shortened, as titles must be unique
