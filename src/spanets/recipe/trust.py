"""Keys that an untrusted recipe must not set: where data are fetched from and files are written.

A recipe, or a checkpoint that contains one, may come from somebody else. It may set how a network
is trained, but not which addresses the run contacts or which folders outside of the run folder it
writes to.
"""

import os
from collections.abc import Collection
from pathlib import Path

from spanets.recipe.sections import Recipe
from spanets_runtime.errors import UsageError

FLAG = "--trust-recipe"

# These write into the run folder and use no network.
_LOCAL_LOGGERS = ("tensorboard", "csv", "none")


def places_outside(recipe: Recipe) -> dict[str, str]:
    """Returns the keys that make a run use the internet or write outside its folder, with reasons.

    Args:
        recipe: A recipe of any task.
    """
    places = {}
    root, data, trainer = recipe.data.root, recipe.data, recipe.trainer
    if root is not None and is_address(root):
        places["data.root"] = "is an address"
    elif root is not None and getattr(data, "source", None) == "hf" and not _exists(root):
        places["data.root"] = "is a name on the hub"
    images = getattr(data, "images", None)
    if images is not None and is_address(images):
        places["data.images"] = "is an address"
    if getattr(data, "cache", None) is not None:
        places["data.cache"] = "is a folder to write to"
    if recipe.model.weights is not None and is_address(recipe.model.weights):
        places["model.weights"] = "is an address"
    teacher = getattr(getattr(recipe, "distill", None), "teacher", None)
    if teacher is not None and ":" in teacher:  # an address, a hub's name or module:function
        places["distill.teacher"] = "is an address or the name of code"
    if _plain_name(trainer.logger) not in _LOCAL_LOGGERS:
        places["trainer.logger"] = f"sends metrics to {trainer.logger}"
    if trainer.logger_args:
        places["trainer.logger_args"] = "may name folders and addresses"
    return places


def is_address(location: str) -> bool:
    r"""Whether reading a location contacts another machine, as a URL or `\\host\share` does."""
    return "://" in location or location.startswith(("pipe:", "\\\\", "//"))


def check_places(recipe: Recipe, origin: str, given: Collection[str] = ()) -> None:
    """Raises a UsageError if a recipe file sets where data are fetched from or files are written.

    Args:
        recipe: The recipe.
        origin: Name of the file, for the message.
        given: Keys set on the command line, which are allowed.
    """
    places = {key: why for key, why in places_outside(recipe).items() if key not in given}
    if places:
        reasons = ", ".join(f"{key} {why}" for key, why in places.items())
        raise UsageError(
            f"{origin}: {reasons}; a file must not set where data are fetched from or written to: "
            f"set {'these keys' if len(places) > 1 else 'this key'} on the command line "
            f"(--{next(iter(places))} VALUE), or add {FLAG} if you trust the file"
        )


def _plain_name(logger: str) -> str:
    return logger.rpartition(".")[2].removesuffix("Logger").lower()


def _exists(root: str) -> bool:
    try:
        return Path(os.path.expanduser(root)).exists()
    except (OSError, RuntimeError, ValueError):  # not a valid path
        return False
