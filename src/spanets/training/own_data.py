"""Decides whether a checkpoint's recipe may choose the images of an evaluation.

A checkpoint may come from a stranger, and without --data `spanets eval` reads the images that its
recipe names. So this is allowed only if the checkpoint lies in its run folder. Addresses outside
also need a flag on the command line; see `recipe.trust`.
"""

from pathlib import Path
from typing import TypeVar

from spanets.recipe import Recipe, load_recipe, parse_recipe
from spanets.recipe.trust import FLAG, places_outside
from spanets.runs.file_names import RECIPE
from spanets.sources import Source
from spanets.weights import WeightsError
from spanets_runtime.errors import UsageError, UserError

R = TypeVar("R", bound=Recipe)


def info_recipe(source: Source, kind: type[R]) -> R:
    """Returns the recipe that a checkpoint was trained with.

    Raises:
        WeightsError: the recipe is damaged or belongs to another task.
    """
    try:
        recipe = parse_recipe(source.info.recipe, origin=source.word)
    except UsageError as error:
        raise WeightsError(f"{source.word}: damaged ({error})") from None
    if not isinstance(recipe, kind):
        raise WeightsError(f"{source.word}: damaged, its recipe is for {recipe.task}")
    return recipe


def own_recipe(source: Source, kind: type[R], trusted: bool) -> R:
    """Returns the recipe that names the images to evaluate a checkpoint on.

    Args:
        source: The checkpoint.
        kind: Recipe class of its task.
        trusted: Whether the user allows the checkpoint to decide.

    Raises:
        UsageError: the checkpoint does not lie in its run folder, or its data are outside.
        WeightsError: the recipe is damaged.
    """
    recipe = info_recipe(source, kind)
    # The folder's recipe is newer if the run was resumed with another data folder.
    own = recipe_beside(source.path, recipe)
    if trusted or recipe.data.root is None:
        return own or recipe
    if own is None:
        raise UsageError(
            f"{source.word}: not in its run folder, and a checkpoint from elsewhere may not choose "
            f"which images are read; name a data set with --data, or add {FLAG}"
        )
    places = [f"{k} {why}" for k, why in places_outside(own).items() if k.startswith("data.")]
    if places:
        raise UsageError(
            f"{source.word}: in its recipe {', '.join(places)}; add {FLAG} to allow this, or "
            "name a data set with --data"
        )
    return own


def recipe_beside(path: Path | None, recipe: R) -> R | None:
    """Returns the recipe of the folder that a checkpoint lies in, if both are of the same run."""
    if path is None:
        return None
    try:
        beside = load_recipe(str(path.parent / RECIPE), trusted=True)
    except UserError:
        return None
    same = beside.task == recipe.task and beside.model == recipe.model
    return beside if isinstance(beside, type(recipe)) and same else None
