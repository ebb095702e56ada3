"""Reports of detection: metrics as text."""

from collections.abc import Mapping
from typing import Any

from spanets.detection.metrics import NAMES

HEADER = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def describe_metrics(results: Mapping[str, Any]) -> str:
    """Returns the metrics of `evaluate` as a readable table with COCO's names."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    lines.append("  " + " " * 4 + "".join(f"{name:>8}" for name in HEADER))
    metrics = results["metrics"]
    for kind in ("box", "mask"):
        if f"{kind}_ap" in metrics:
            values = (metrics[f"{kind}_{name}"] for name in NAMES)
            cells = ("none" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"  {kind:4}" + "".join(f"{cell:>8}" for cell in cells))
    return "\n".join(lines)
