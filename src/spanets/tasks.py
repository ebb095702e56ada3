"""The table of tasks: names, each with the class that implements the task.

Recipes, checkpoints and the training engine find a task by its name. Its package (a "wing", such as
`spanets.detection`) is imported only when it is used. Other packages add a task with the entry
point group `spanets.tasks` or with `register_task`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from spanets_runtime.errors import UsageError, nearest
from spanets_runtime.text import shorten

if TYPE_CHECKING:
    from spanets.training.task import Task

DEFAULT_TASK = "classification"
"""Task of a recipe that does not name one."""

_WINGS = {
    "classification": "spanets.classification.task:ClassificationTask",
    "multilabel": "spanets.multilabel.task:MultilabelTask",
    "regression": "spanets.regression.task:RegressionTask",
    "detection": "spanets.detection.task:DetectionTask",
    "segmentation": "spanets.segmentation.task:SegmentationTask",
}
_REGISTERED: dict[str, type[Task[Any]]] = {}


def register_task(task: type[Task[Any]]) -> type[Task[Any]]:
    """Registers a task under its `name`; can be used as a class decorator.

    Raises:
        ValueError: this package already has a task of that name.
    """
    if task.name in _WINGS:
        raise ValueError(f"the task {task.name!r} is this package's own")
    _REGISTERED[task.name] = task
    return task


def list_tasks() -> list[str]:
    """Returns the names of all tasks."""
    return [*_WINGS, *sorted(_REGISTERED.keys() | _plugins().keys())]


def load_task(name: object) -> type[Task[Any]]:
    """Returns the class of a task.

    Raises:
        UsageError: unknown task; the message lists the known ones.
    """
    if isinstance(name, str):
        if name in _REGISTERED:
            return _REGISTERED[name]
        if name in _WINGS:
            module, _, attribute = _WINGS[name].partition(":")
            return getattr(import_module(module), attribute)
        if name in _plugins():
            return _plugins()[name].load()
    known = list_tasks()
    shown = shorten(repr(name))
    raise UsageError(f"task is {shown}, allowed: {', '.join(known)}{nearest(str(name), known)}")


@cache
def _plugins() -> dict[str, Any]:
    """Returns the entry points of tasks in other installed packages."""
    return {found.name: found for found in entry_points(group="spanets.tasks")}
