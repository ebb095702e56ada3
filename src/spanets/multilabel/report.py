"""Reports of several labels an image: metrics as text."""

from collections.abc import Mapping
from typing import Any

MAX_LABELS = 20
"""Largest number of labels whose numbers are all printed."""

_COLUMNS = ("ap", "precision", "recall", "f1", "threshold")
_NAMES = {"map": "mAP", "f1_micro": "F1 (micro)", "f1_macro": "F1 (macro)"}


def describe_metrics(results: Mapping[str, Any]) -> str:
    """Returns the metrics of `evaluate` as readable lines."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    if unreadable := results.get("unreadable"):
        lines.append(f"  left out as unreadable: {len(unreadable)}, such as {unreadable[0]}")
    for name, value in results["metrics"].items():
        shown = "undefined on these images" if value is None else f"{value:.4f}"
        lines.append(f"  {_NAMES.get(name, name):14} {shown}")
    rows = list(results["labels"].items())
    if absent := [name for name, row in rows if not row["images"]]:
        shown = ", ".join(absent[:5]) + (", …" if absent[5:] else "")
        lines.append(f"  not in the means, because no image has them: {len(absent)} ({shown})")
    if not results["thresholds_chosen"]:
        lines.append("  thresholds are 0.5: none were chosen for this model")
    if len(rows) > MAX_LABELS:
        rows = sorted((row for row in rows if row[1]["images"]), key=lambda row: row[1]["ap"])
        rows = rows[: MAX_LABELS // 2]
        lines.append(f"  the {len(rows)} labels of lowest AP; --json lists all:")
    width = max((len(name) for name, _ in rows), default=5)
    lines.append(f"  {'label':{width}} {'images':>7} " + " ".join(f"{c:>9}" for c in _COLUMNS))
    for name, row in rows:
        numbers = " ".join(
            f"{'-' if row[c] is None else format(row[c], '.4f'):>9}" for c in _COLUMNS
        )
        lines.append(f"  {name:{width}} {row['images']:>7} {numbers}")
    return "\n".join(lines)
