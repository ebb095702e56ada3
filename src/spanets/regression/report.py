"""Reports of numbers from images: metrics as text, and a scatter plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spanets.regression.metrics import NAMES
from spanets.training.report import save_figure, subplots
from spanets_runtime.figures import name_label

MAX_PANELS = 8
"""Largest number of panels in the scatter plot."""

SHOWN_NAMES = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "spearman": "Spearman"}


def describe_metrics(results: Mapping[str, Any]) -> str:
    """Returns the metrics of `evaluate` as readable lines."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    if unreadable := results.get("unreadable"):
        lines.append(f"  left out as unreadable: {len(unreadable)}, such as {unreadable[0]}")
    if len(results["values"]) > 1:
        for name, value in results["metrics"].items():
            lines.append(f"  mean {SHOWN_NAMES[name]:9} {_format(value)}")
    width = max((len(name) for name in results["values"]), default=5)
    for name, row in results["values"].items():
        shown = "  ".join(f"{SHOWN_NAMES[key]} {_format(row[key])}" for key in NAMES)
        lines.append(f"  {name:{width}}  {shown}")
    return "\n".join(lines)


def _format(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.5g}"


def plot_scatter(results: Mapping[str, Any], path: Path) -> None:
    """Draws predicted against true numbers, one panel each."""
    names = list(results["values"])[:MAX_PANELS]
    true, predicted = (np.array(results["points"][key]) for key in ("true", "predicted"))
    figure, panels = subplots(1, len(names), (3.6 * len(names), 3.6))
    for number, (name, axes) in enumerate(zip(names, np.atleast_1d(panels), strict=True)):
        x, y = true[:, number], predicted[:, number]
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], "k--", linewidth=1)
        axes.scatter(x, y, s=8, alpha=0.5)
        r2 = results["values"][name]["r2"]
        axes.set(xlabel="true", ylabel="predicted")
        axes.set_title(f"{name_label(name)}, R² {_format(r2)}", fontsize=10)
    save_figure(figure, path)
