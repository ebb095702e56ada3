"""Reports of classification: metrics as text, and a figure of the confusion matrix."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spanets.training.report import save_figure, subplots
from spanets_runtime.figures import name_label

# Largest number of classes for which names, and numbers, fit into the confusion matrix figure.
MAX_NAMES, MAX_NUMBERS = 40, 15

MAX_RECALLS = 20
"""Largest number of classes whose recalls are all printed."""

MAX_LABEL = 30
"""Largest number of characters of a class name in the figure."""


def describe_metrics(results: Mapping[str, Any]) -> str:
    """Returns the metrics of `evaluate` as readable lines."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    if unreadable := results.get("unreadable"):
        lines.append(f"  left out as unreadable: {len(unreadable)}, such as {unreadable[0]}")
    width = max(14, *map(len, results["metrics"]))
    for name, value in results["metrics"].items():
        shown = "undefined on these images" if value is None else f"{value:.4f}"
        lines.append(f"  {name:{width}} {shown}")
    classes = enumerate(zip(results["classes"], results["confusion"], strict=True))
    rows = [(name, row[i] / sum(row) if sum(row) else None, sum(row)) for i, (name, row) in classes]
    if len(rows) > MAX_RECALLS:
        found = [row for row in rows if row[1] is not None]
        rows = sorted(found, key=lambda row: row[1] or 0.0)[: MAX_RECALLS // 2]
        lines.append(f"  the {len(rows)} classes of lowest recall; --json lists all:")
    for name, recall, count in rows:
        shown = "undefined" if recall is None else f"{recall:.3f}"
        lines.append(f"  recall of {name}: {shown} ({count} images)")
    return "\n".join(lines)


def plot_confusion(confusion: list[list[int]], classes: list[str], path: Path) -> None:
    """Draws the confusion matrix (rows: truth), coloured by the fraction of each row."""
    count = len(classes)
    side = min(12.0, 2.8 + 0.6 * count)
    figure, axes = subplots(1, 1, (side + 1.2, side))
    numbers = np.array(confusion)
    shares = numbers / numbers.sum(1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= MAX_NAMES:
        labels = [name_label(name, MAX_LABEL) for name in classes]
        axes.set_xticks(range(count), labels, rotation=45, ha="right")
        axes.set_yticks(range(count), labels)
    if count <= MAX_NUMBERS:
        for (i, j), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            text = f"{numbers[i, j]}\n{share:.0%}"
            axes.text(j, i, text, ha="center", va="center", color=color)
    save_figure(figure, path)
