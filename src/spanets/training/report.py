"""The report at the end of a run of any task: summary lines and learning curves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets_runtime.errors import first_line, require
from spanets_runtime.figures import name_label, render
from spanets_runtime.files import write_atomically
from spanets_runtime.text import format_duration

if TYPE_CHECKING:
    from spanets.training.callbacks import Row
    from spanets.training.task import Picture


def describe_results(results: Mapping[str, Any], measured: str) -> str:
    """Returns the summary at the end of a training run.

    Args:
        results: The results of `train`.
        measured: The lines with the task's metrics.
    """
    millions, duration = results["parameters"] / 1e6, format_duration(results["train_seconds"])
    lines = [
        "",
        f"{results['model']}, {millions:.2f} M parameters, "
        f"{results['epochs']} epochs in {duration}",
        measured,
    ]
    if results["best_epoch"] is not None:
        score = f"validation {results['score']} {results['best_score']:.4f}"
        lines.append(f"best epoch: {results['best_epoch']} ({score}), {results['best_checkpoint']}")
    lines += [f"{what.replace('_', ' ')}: {path}" for what, path in results["pictures"].items()]
    lines.append(f"next: spanets predict {results['checkpoint']} IMAGE...")
    return "\n".join(lines)


def draw_pictures(pictures: Mapping[str, Picture], out: Path) -> dict[str, str]:
    """Draws pictures into a folder; one that fails gives a warning, and the others are drawn.

    Returns:
        The paths of the drawn pictures, by name.
    """
    drawn = {}
    for name, draw in pictures.items():
        path = out / f"{name}.png"
        try:
            draw(path)
        # Fonts, matplotlib's settings or memory may fail; the results are already written.
        except Exception as error:
            print(f"spanets: warning: {path}: not drawn ({first_line(error)})", file=sys.stderr)
        else:
            drawn[name] = str(path)
    return drawn


def plot_curves(
    history: list[Row], path: Path, title: str, loss: str, metrics: Mapping[str, str]
) -> None:
    """Plots loss (training and validation) and validation metrics against the epoch.

    Args:
        history: One row an epoch.
        path: Path of the PNG file.
        title: Title of the figure.
        loss: Label of the loss axis.
        metrics: Labels of the metrics, by logged name.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = subplots(1, 2, (9, 3.6))
    curves = [
        (left, "train/loss", "training"),
        (left, "val/loss", "validation"),
        *((right, key, label) for key, label in metrics.items()),
    ]
    for axes, key, label in curves:
        points = [(row["epoch"], row[key]) for row in history if key in row]
        if points:
            axes.plot(
                *zip(*points, strict=True), label=label, marker="." if len(points) < 50 else ""
            )
    left.set(ylabel=loss, ylim=(0, 1.05 * left.get_ylim()[1]))
    right.set(ylabel="on the validation images", ylim=(None, 1.02))
    for axes in (left, right):
        axes.set(xlabel="epoch", xlim=(0.5, max(1, len(history)) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    figure.suptitle(name_label(title))
    save_figure(figure, path)


def subplots(rows: int, columns: int, size: tuple[float, float]) -> Any:
    """Returns a figure of this size in inches, and its axes."""
    # The object interface needs no display and does not change the user's pyplot state.
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as a PNG file, atomically."""
    content = render(figure, "png", dpi=150)
    write_atomically(path, lambda file: file.write(content))
