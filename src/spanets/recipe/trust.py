"""What a recipe may decide on the command line alone: where data are fetched, where files go.

A recipe, and a checkpoint with the recipe in it, may come from others. Such a file sets how a
network is trained. It does not choose an address that this machine asks, nor a folder outside the
run folder that this machine writes to.
"""

import os
from collections.abc import Collection
from pathlib import Path

from spanets.recipe.sections import Recipe
from spanets_runtime.errors import UsageError

FLAG = "--trust-recipe"

# They write into the run folder and reach for no network.
_LOCAL_LOGGERS = ("tensorboard", "csv", "none")


def places_outside(recipe: Recipe) -> dict[str, str]:
    """Returns the keys that make a run fetch from elsewhere or write elsewhere, each with a reason.

    Args:
        recipe: Of any task.
    """
    places = {}
    root, data, trainer = recipe.data.root, recipe.data, recipe.trainer
    if root is not None and is_address(root):
        places["data.root"] = "is an address"
    elif root is not None and getattr(data, "source", None) == "hf" and not _exists(root):
        places["data.root"] = "is a name on the hub"
    if getattr(data, "cache", None) is not None:
        places["data.cache"] = "is a folder to write to"
    if recipe.model.weights is not None and is_address(recipe.model.weights):
        places["model.weights"] = "is an address"
    if _plain_name(trainer.logger) not in _LOCAL_LOGGERS:
        places["trainer.logger"] = f"sends metrics to {trainer.logger}"
    if trainer.logger_args:
        places["trainer.logger_args"] = "may name folders and addresses"
    return places


def is_address(location: str) -> bool:
    r"""Tells whether reading a location asks another machine; `\\host\share` is one, too."""
    return "://" in location or location.startswith(("pipe:", "\\\\", "//"))


def check_places(recipe: Recipe, origin: str, given: Collection[str] = ()) -> None:
    """Raises a UsageError if a file's recipe decides where data are fetched or files are written.

    Args:
        recipe: As read from the file.
        origin: The file, for the message.
        given: Keys that the command line sets, and that the file therefore does not decide.
    """
    places = {key: why for key, why in places_outside(recipe).items() if key not in given}
    if places:
        told = ", ".join(f"{key} {why}" for key, why in places.items())
        raise UsageError(
            f"{origin}: {told}; a file does not decide where data are fetched from or written to: "
            f"set {'these keys' if len(places) > 1 else 'this key'} on the command line "
            f"(--{next(iter(places))} VALUE), or add {FLAG} if you trust the file"
        )


def _plain_name(logger: str) -> str:
    return logger.rpartition(".")[2].removesuffix("Logger").lower()


def _exists(root: str) -> bool:
    try:
        return Path(os.path.expanduser(root)).exists()
    except (OSError, RuntimeError, ValueError):  # no name of a path
        return False
