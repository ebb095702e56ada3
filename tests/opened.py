"""Short forms for tests of what is opened by name."""

from pathlib import Path

from torch import nn

from spanets.checkpoint import ModelInfo
from spanets.sources import open_checkpoint
from spanets.tasks import list_tasks, load_task

RECIPES = {name: load_task(name).recipe_type for name in list_tasks()}


def restore_model(path: str | Path) -> tuple[nn.Module, ModelInfo]:
    """Returns the model of a checkpoint, and what is known about it."""
    source = open_checkpoint(path)
    return source.network, source.info
