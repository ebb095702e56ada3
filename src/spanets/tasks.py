"""The tasks that models are trained for: a table of names, each with the class of its wing.

A wing is imported when it is asked for. So recipes, checkpoints and the training engine find it by
name, and know nothing of it; another package adds a task by the entry point group `spanets.tasks`,
or by `register_task`.
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
"""Of a recipe that names no task."""

_WINGS = {
    "classification": "spanets.classification.task:ClassificationTask",
    "detection": "spanets.detection.task:DetectionTask",
    "segmentation": "spanets.segmentation.task:SegmentationTask",
}
_REGISTERED: dict[str, type[Task[Any]]] = {}


def register_task(task: type[Task[Any]]) -> type[Task[Any]]:
    """Adds a task under its `name`; also a class decorator.

    Raises:
        ValueError: the name is that of a wing of this package.
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
        UsageError: an unknown task; the message names those that are known.
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
    """The tasks that installed packages bring."""
    return {found.name: found for found in entry_points(group="spanets.tasks")}
