"""Reports of detection: metrics as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from spanets.detection.metrics import KEYPOINT_NAMES, NAMES
from spanets.training.thresholds import describe_rates

MAX_CLASSES = 20
"""Largest number of classes that are all printed."""

HEADER = ("AP", "AP50", "AP75", "APs", "APm", "APl")
KEYPOINT_HEADER = ("AP", "AP50", "AP75", "APm", "APl", "AR")


def describe_metrics(results: Mapping[str, Any]) -> str:
    """Returns the metrics of `evaluate` as a readable table with COCO's names."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    metrics = results["metrics"]
    lines += _overall(metrics, HEADER, NAMES, ("box", "mask"))
    if "keypoint_ap" in metrics:
        lines += _overall(metrics, KEYPOINT_HEADER, KEYPOINT_NAMES, ("keypoint",))
    lines += [f"  {results['tta']}"] if "tta" in results else []
    return "\n".join([*lines, *_by_class(results), *_thresholds(results), *_mistakes(results)])


def _overall(
    metrics: Mapping[str, Any], header: Sequence[str], names: Sequence[str], kinds: Sequence[str]
) -> list[str]:
    """Returns a table with a row for each kind that was measured."""
    width = 8 if "keypoint" in kinds else 4
    lines = ["  " + " " * width + "".join(f"{name:>8}" for name in header)]
    for kind in kinds:
        if f"{kind}_ap" in metrics:
            values = (metrics[f"{kind}_{name}"] for name in names)
            cells = ("none" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"  {kind:{width}}" + "".join(f"{cell:>8}" for cell in cells))
    return lines


def _by_class(results: Mapping[str, Any]) -> list[str]:
    """Returns the box precisions of each class, and its threshold for the best F1."""
    precisions = results["by_class"]["box"]
    best = {row["class"]: row for row in results["thresholds"] if row["goal"] == "f1"}
    names = [name for name in results["classes"] if best[name]["objects"]]
    lines, order = [], names
    if len(names) > MAX_CLASSES:
        order = sorted(names, key=lambda name: precisions[name]["ap"] or 0.0)[: MAX_CLASSES // 2]
        lines.append(f"  the {len(order)} classes of lowest box AP; --json lists all:")
    width = max(map(len, [*order, "class"]))
    header = ("objects", *HEADER, "best F1", "at score")
    lines.append(f"  {'class':{width}}" + "".join(f"{name:>9}" for name in header))
    for name in order:
        row = best[name]
        values = (*(precisions[name][key] for key in NAMES), row["f1"], row["threshold"])
        cells = [str(row["objects"]), *("none" if v is None else f"{v:.3f}" for v in values)]
        lines.append(f"  {name:{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return lines


def _thresholds(results: Mapping[str, Any]) -> list[str]:
    """Returns the thresholds for all classes together, and for a precision also by class."""
    lines = []
    are_many = len(results["classes"]) > MAX_CLASSES
    for row in results["thresholds"]:
        if row["class"] is not None and (row["goal"] == "f1" or are_many or not row["objects"]):
            continue
        of = "" if row["class"] is None else f" of {row['class']}"
        goal = "best F1" if row["goal"] == "f1" else row["goal"]
        shown = "none on these images"
        if row["threshold"] is not None:
            shown = f"{row['threshold']:.4f} ({describe_rates(row)} on these images, at IoU 0.5)"
        elif row["precision"] is not None:
            shown += f"; the best precision is {row['precision']:.4f}"
        lines.append(f"  threshold{of} for {goal}: {shown}")
    return lines


def _mistakes(results: Mapping[str, Any]) -> list[str]:
    """Returns the number of mistakes of each kind, and the written files."""
    counts = dict(results["mistakes"])
    score, correct = counts.pop("score"), counts.pop("correct")
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    lines = [f"  at a score of {score:.4f}: correct {correct}; mistakes: {kinds}"]
    if (written := results.get("errors")) is not None:
        lines.append(f"  mistakes: {written['page']}; all detections: {written['table']}")
    return lines
