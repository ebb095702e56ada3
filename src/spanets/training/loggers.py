"""Lightning's loggers by name; they get the metrics in addition to metrics.csv."""

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

from spanets.recipe import Recipe
from spanets_runtime.errors import UsageError, UserError, first_line, nearest

_CLASSES = {
    name.removesuffix("Logger").lower(): name for name in loggers.__all__ if name != "Logger"
}
_PREFIX = "lightning.pytorch.loggers."

# What gets the arguments that a logger does not know itself, once training has started.
_LATE = {
    "TensorBoardLogger": "torch.utils.tensorboard.SummaryWriter",
    "WandbLogger": "wandb.init",
}
_TAKEN = {"args", "kwargs", "log_dir"}  # not to be set, or set by the logger

# Arguments that hold secrets, which must not be in a recipe.
_SECRET = re.compile(r"key$|token|secret|password", re.IGNORECASE)


def make_logger(recipe: Recipe, out: Path) -> Logger | None:
    """Returns the logger of a recipe, or None if `trainer.logger` is "none".

    Args:
        recipe: The recipe, with `trainer.logger` and `trainer.logger_args`.
        out: The run folder, where the logger puts its files if it has any.

    Raises:
        UsageError: an unknown logger, or arguments that it does not accept.
        UserError: its package is not installed.
    """
    name, given = recipe.trainer.logger, recipe.trainer.logger_args
    if name == "none":
        return None
    kind = getattr(loggers, find_logger(name))
    for key in given:
        if _SECRET.search(key):
            raise UsageError(
                f"trainer.logger_args.{key}: the run folder stores the recipe, so set secrets in "
                f"the environment variable that {name} reads"
            )
    try:
        _check_late(kind, given)
        return kind(**_places(kind, out) | given)
    except ModuleNotFoundError as error:
        raise UserError(_missing(name, error)) from None
    # Loggers raise errors of many types for wrong arguments.
    except Exception as error:
        raise UsageError(f"trainer.logger {name} with {given}: {first_line(error)}") from error


def find_logger(name: str) -> str:
    """Returns the class name for "wandb", "WandbLogger" or "lightning.pytorch.loggers.WandbLogger".

    Raises:
        UsageError: Lightning has no such logger.
    """
    plain = name.removeprefix(_PREFIX)
    if plain in _CLASSES.values():
        return plain
    if plain not in _CLASSES:
        known = ", ".join(["none", *sorted(_CLASSES)])
        raise UsageError(
            f"trainer.logger is {name!r}, allowed: {known}{nearest(plain.lower(), _CLASSES)}"
        )
    return _CLASSES[plain]


def _check_late(kind: type[Logger], given: Mapping[str, Any]) -> None:
    """Raises a TypeError for arguments that a logger would use, and refuse, only in training."""
    early, late = inspect.signature(kind).parameters, _LATE.get(kind.__name__)
    if late is None or given.keys() <= early.keys():
        return
    module, _, name = late.rpartition(".")
    try:
        known = inspect.signature(getattr(import_module(module), name)).parameters
    except ImportError:  # another package writes the files, or the logger says what is missing
        return
    allowed = sorted((early.keys() | known.keys()) - _TAKEN)
    for key in given:
        if key not in allowed:
            raise TypeError(
                f"no argument {key!r}{nearest(key, allowed) or '; allowed: ' + ', '.join(allowed)}"
            )


def _places(kind: type[Logger], out: Path) -> dict[str, Any]:
    """Returns the arguments that put a logger's files into the run folder."""
    folders = {"TensorBoardLogger": "tensorboard", "CSVLogger": "csv"}
    known = inspect.signature(kind).parameters
    if kind.__name__ in folders:
        more = {"default_hp_metric": False} if "default_hp_metric" in known else {}
        return {"save_dir": out, "name": "", "version": folders[kind.__name__], **more}
    if kind.__name__ == "MLFlowLogger":
        return {"save_dir": str(out / "mlruns"), "run_name": out.name}
    return {key: str(out) for key in ("save_dir", "root_dir") if key in known}


def _missing(name: str, error: ModuleNotFoundError) -> str:
    """Returns a message with the package to install, taken from Lightning's error."""
    quoted = re.search(r"pip install -U '([\w-]+)", str(error))
    package = quoted[1] if quoted else error.name or name
    return f"trainer.logger is {name}, and {package} is not installed; run: pip install {package}"
