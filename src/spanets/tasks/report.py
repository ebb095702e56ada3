"""What a run ends with: its numbers as lines, its learning curves and its confusion matrix."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from spanets.tasks.callbacks import Row, format_duration
from spanets_runtime.errors import require
from spanets_runtime.files import write_atomically

# Beyond these many classes names, or numbers, do not fit into the picture of a confusion matrix.
MAX_NAMES, MAX_NUMBERS = 40, 15


def describe_metrics(results: dict[str, Any]) -> str:
    """Returns the metrics of `evaluate` as lines for people."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    for name, value in results["metrics"].items():
        shown = "undefined on these images" if value is None else f"{value:.4f}"
        lines.append(f"  {name:14} {shown}")
    if len(results["classes"]) <= 20:
        for i, (name, row) in enumerate(zip(results["classes"], results["confusion"], strict=True)):
            recall = f"{row[i] / sum(row):.3f}" if sum(row) else "undefined"
            lines.append(f"  recall of {name}: {recall} ({sum(row)} images)")
    return "\n".join(lines)


def describe_results(results: dict[str, Any]) -> str:
    """Returns the summary at the end of a training run."""
    millions, duration = results["parameters"] / 1e6, format_duration(results["train_seconds"])
    lines = [
        "",
        f"{results['model']}, {millions:.2f} M parameters, "
        f"{results['epochs']} epochs in {duration}",
        describe_metrics(results),
    ]
    if results["best_epoch"] is not None:
        accuracy = f"validation accuracy {results['best_val_accuracy']:.4f}"
        lines.append(
            f"best epoch: {results['best_epoch']} ({accuracy}), {results['best_checkpoint']}"
        )
    lines.append(f"learning curve: {results['learning_curve']}")
    lines.append(f"confusion matrix: {results['confusion_matrix']}")
    lines.append(f"next: spanets predict {results['checkpoint']} IMAGE...")
    return "\n".join(lines)


def plot_curves(history: list[Row], path: Path, title: str) -> None:
    """Draws loss (training and validation) and validation metrics against the epoch."""
    from matplotlib.ticker import MaxNLocator

    figure, (losses, metrics) = _subplots(1, 2, (9, 3.6))
    curves = (
        (losses, "train/loss", "training"),
        (losses, "val/loss", "validation"),
        (metrics, "val/accuracy", "accuracy"),
        (metrics, "val/auroc", "AUROC"),
        (metrics, "val/f1", "F1"),
    )
    for axes, key, label in curves:
        points = [(row["epoch"], row[key]) for row in history if key in row]
        if points:
            axes.plot(
                *zip(*points, strict=True), label=label, marker="." if len(points) < 50 else ""
            )
    losses.set(ylabel="cross entropy", ylim=(0, 1.05 * losses.get_ylim()[1]))
    metrics.set(ylabel="on the validation images", ylim=(None, 1.02))
    for axes in (losses, metrics):
        axes.set(xlabel="epoch", xlim=(0.5, max(1, len(history)) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    figure.suptitle(title, parse_math=False)
    _save(figure, path)


def plot_confusion(confusion: list[list[int]], classes: list[str], path: Path) -> None:
    """Draws the confusion matrix, rows the truth, coloured by the share of each row."""
    count = len(classes)
    side = min(12.0, 2.8 + 0.6 * count)
    figure, axes = _subplots(1, 1, (side + 1.2, side))
    numbers = np.array(confusion)
    shares = numbers / numbers.sum(1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= MAX_NAMES:
        # A class may be called "$5".
        axes.set_xticks(range(count), classes, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(count), classes, parse_math=False)
    if count <= MAX_NUMBERS:
        for (i, j), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            text = f"{numbers[i, j]}\n{share:.0%}"
            axes.text(j, i, text, ha="center", va="center", color=color)
    _save(figure, path)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> Any:
    # The object interface needs no display and leaves the user's pyplot state alone.
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _save(figure: Any, path: Path) -> None:
    buffer = BytesIO()
    with warnings.catch_warnings():
        # Of class names in scripts that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
