"""Reports of classification: metrics as text, and a figure of the confusion matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spanets.classification.answers import BINS
from spanets.classification.group_metrics import describe_groups
from spanets.training.report import save_figure, subplots
from spanets.training.thresholds import describe_rates
from spanets_runtime.figures import name_label

# Largest number of classes for which names, and numbers, fit into the confusion matrix figure.
MAX_NAMES, MAX_NUMBERS = 40, 15

MAX_RECALLS = 20
"""Largest number of classes whose recalls are all printed."""

_MEANING = {
    "ece": f" ({BINS} equal-width bins of the largest probability)",
    "ece_calibrated": " (the same with the temperature in the checkpoint)",
}

MAX_LABEL = 30
"""Largest number of characters of a class name in the figure."""


def describe_metrics(results: Mapping[str, Any]) -> str:
    """Returns the metrics of `evaluate` as readable lines."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    if unreadable := results.get("unreadable"):
        lines.append(f"  left out as unreadable: {len(unreadable)}, such as {unreadable[0]}")
    lines += [f"  {results['tta']}"] if "tta" in results else []
    width = max(14, *map(len, results["metrics"]))
    for name, value in results["metrics"].items():
        shown = "undefined on these images" if value is None else f"{value:.4f}"
        lines.append(f"  {name:{width}} {shown}{_MEANING.get(name, '')}")
    classes = enumerate(zip(results["classes"], results["confusion"], strict=True))
    rows = [(name, row[i] / sum(row) if sum(row) else None, sum(row)) for i, (name, row) in classes]
    if len(rows) > MAX_RECALLS:
        found = [row for row in rows if row[1] is not None]
        rows = sorted(found, key=lambda row: row[1] or 0.0)[: MAX_RECALLS // 2]
        lines.append(f"  the {len(rows)} classes of lowest recall; --json lists all:")
    for name, recall, count in rows:
        shown = "undefined" if recall is None else f"{recall:.3f}"
        lines.append(f"  recall of {name}: {shown} ({count} images)")
    return "\n".join([*lines, *_describe_extras(results)])


def _describe_extras(results: Mapping[str, Any]) -> list[str]:
    """Returns lines about thresholds, calibration and the page of mistakes, where there are any."""
    lines = describe_groups(results["groups"]) if "groups" in results else []
    for found in results.get("thresholds", ()):
        lines += _describe_threshold(found, results["classes"][1], results["data"])
    if (fitted := results.get("calibration")) is not None:
        lines.append(
            f"  temperature {fitted['temperature']:.4f}, fitted on {fitted['images']} validation "
            f"images, is now in {results['checkpoint']}: there ECE {fitted['ece_before']:.4f} "
            f"before and {fitted['ece_after']:.4f} after, negative log-likelihood "
            f"{fitted['nll_before']:.4f} and {fitted['nll_after']:.4f}"
        )
    if (written := results.get("errors")) is not None:
        lines.append(
            f"  {written['wrong']} mistakes: {written['page']}; all answers: {written['table']}; "
            f"reliability: {written['diagram']}"
        )
    if (found := results.get("wrong_labels")) is not None:
        lines += describe_wrong_labels(found)
    return lines


def describe_wrong_labels(found: Mapping[str, Any]) -> list[str]:
    """Returns the results of `save_wrong_labels` as lines."""
    return [
        f"  {found['likely']} labels are likely wrong: {found['page']}, {found['table']}",
        f"    about {found['share']:.1%} of all are estimated to be wrong, which is too many if "
        "the model often is",
        f"    {found['scope']}",
    ]


def _describe_threshold(found: Mapping[str, Any], name: str, data: str) -> list[str]:
    goal = "best F1" if found["goal"] == "f1" else found["goal"]
    where = f"the {found['images']} validation images"
    if found["threshold"] is None:
        most = (
            ""
            if found["precision"] is None
            else f"; the best precision is {found['precision']:.4f}"
        )
        return [f"  threshold of {name} for {goal}: none on {where}{most}"]
    rates = describe_rates(found)
    lines = [f"  threshold of {name} for {goal}: {found['threshold']:.4f} ({rates} on {where})"]
    if (here := found.get("measured")) is not None:
        lines.append(f"    with it, on {data}: {describe_rates(here)}")
    if (calibrated := found.get("calibrated_threshold")) is not None:
        lines.append(f"    in probabilities of `predict --calibrated`: {calibrated:.4f}")
    return lines


def plot_reliability(bins: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws accuracy against confidence by bin, and how many images each bin has."""
    figure, (upper, lower) = subplots(2, 1, (4.2, 5.2))
    filled = [b for b in bins if b["images"]]
    width, total = 1 / len(bins), sum(b["images"] for b in bins)
    middles = [(b["low"] + b["high"]) / 2 for b in filled]
    upper.bar(middles, [b["accuracy"] for b in filled], 0.9 * width, label="measured")
    upper.plot([0, 1], [0, 1], "k--", linewidth=1, label="ideal")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.legend(frameon=False, loc="upper left")
    lower.bar(middles, [b["images"] / total for b in filled], 0.9 * width, color="gray")
    lower.set(xlim=(0, 1), xlabel="probability of the predicted class", ylabel="share of images")
    save_figure(figure, path)


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
