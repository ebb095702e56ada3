"""The pictures of a run: learning curves and confusion matrix."""

import csv
from io import BytesIO
from pathlib import Path
from typing import Any

from spanets.checkpoint import write_atomically
from spanets.errors import require
from spanets.tasks.callbacks import format_duration

Row = dict[str, float]


def read_history(logs: Path) -> list[Row]:
    """Reads the metrics of every epoch from a run's CSV logs, over all restarts.

    Returns:
        One row an epoch, in order; where a restart repeated an epoch, its last values.
    """
    epochs: dict[int, Row] = {}
    files = sorted(logs.glob("version_*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    for path in files:
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                row = {key: float(value) for key, value in line.items() if value}
                epochs.setdefault(int(row["epoch"]), {}).update(row)
    return [epochs[epoch] for epoch in sorted(epochs)]


def describe_metrics(results: dict[str, Any]) -> str:
    """Returns the metrics of `evaluate` as lines for people."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    lines += [f"  {name:14} {value:.4f}" for name, value in results["metrics"].items()]
    for name, row in zip(results["classes"], results["confusion"], strict=True):
        if len(results["classes"]) <= 20:
            recall = row[results["classes"].index(name)] / max(1, sum(row))
            lines.append(f"  recall of {name}: {recall:.3f} ({sum(row)} images)")
    return "\n".join(lines)


def describe_results(results: dict[str, Any]) -> str:
    """Returns the summary at the end of a training run."""
    lines = [
        "",
        f"{results['model']}, {results['parameters'] / 1e6:.2f} M parameters, "
        f"{results['epochs']} epochs in {format_duration(results['train_seconds'])}",
        describe_metrics(results),
    ]
    if results["best_epoch"] is not None:
        lines.append(
            f"best epoch: {results['best_epoch']} (validation accuracy "
            f"{results['best_val_accuracy']:.4f}), {results['best_checkpoint']}"
        )
    lines.append(f"learning curve: {results['learning_curve']}")
    lines.append(f"confusion matrix: {results['confusion_matrix']}")
    lines.append(f"next: spanets predict {results['checkpoint']} IMAGE...")
    return "\n".join(lines)


def plot_curves(history: list[Row], path: Path, title: str) -> None:
    """Draws loss (training and validation) and validation metrics against the epoch."""
    figure, (losses, metrics) = _subplots(1, 2, (9, 3.6))
    series = {"train/loss": (losses, "training"), "val/loss": (losses, "validation")}
    series |= {
        f"val/{name}": (metrics, label)
        for name, label in (("accuracy", "accuracy"), ("auroc", "AUROC"), ("f1", "F1"))
    }
    for key, (axes, label) in series.items():
        points = [(row["epoch"] + 1, row[key]) for row in history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker=".")
    losses.set(title=title, xlabel="epoch", ylabel="cross entropy")
    metrics.set(title="validation images", xlabel="epoch", ylabel="share", ylim=(None, 1.0))
    for axes in (losses, metrics):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    _save(figure, path)


def plot_confusion(confusion: list[list[int]], classes: list[str], path: Path) -> None:
    """Draws the confusion matrix, rows the truth, coloured by the share of each row."""
    count = len(classes)
    side = min(12.0, 2.8 + 0.6 * count)
    figure, axes = _subplots(1, 1, (side + 0.8, side))
    totals = [max(1, sum(row)) for row in confusion]
    shares = [[n / total for n in row] for row, total in zip(confusion, totals, strict=True)]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= 30:
        axes.set_xticks(range(count), classes, rotation=45, ha="right")
        axes.set_yticks(range(count), classes)
    if count <= 15:
        for i, row in enumerate(confusion):
            for j, number in enumerate(row):
                color = "white" if shares[i][j] > 0.5 else "black"
                axes.text(j, i, f"{number}\n{shares[i][j]:.0%}", ha="center", va="center", color=color)
    _save(figure, path)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> Any:
    # The object interface needs no display and leaves the user's pyplot state alone.
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _save(figure: Any, path: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
