"""Every task's plan, by its name in recipes and checkpoints."""

from pathlib import Path
from typing import Any

from spanets.checkpoint import task_of
from spanets.classification.task import ClassificationPlan
from spanets.detection.task import DetectionPlan
from spanets.segmentation.task import SegmentationPlan
from spanets.training.task import Plan
from spanets.weights import WeightsError
from spanets_runtime.onnx import is_exported

PLANS: dict[str, type[Plan[Any]]] = {
    "classification": ClassificationPlan,
    "detection": DetectionPlan,
    "segmentation": SegmentationPlan,
}


def plan_of(checkpoint: Path) -> type[Plan[Any]]:
    """Returns the plan of the task that a checkpoint was trained for.

    Exported files are taken for classifiers.

    Raises:
        WeightsError: an unreadable checkpoint, or a task of which this version knows nothing.
    """
    task = "classification" if is_exported(checkpoint) else task_of(checkpoint)
    if task not in PLANS:
        raise WeightsError(f"{checkpoint}: its task is {task!r}, known are {', '.join(PLANS)}")
    return PLANS[task]
