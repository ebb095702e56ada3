"""Which images the recipe in a checkpoint may name: those of the run folder that it lies in.

A checkpoint may come from others, and `spanets eval` without a data set reads what its recipe says.
Only the recipe of one's own run folder decides that, and even it names no address without a word
on the command line; see `recipe.trust`.
"""

from pathlib import Path
from typing import TypeVar

from spanets.recipe import Recipe, load_recipe, parse_recipe
from spanets.recipe.trust import FLAG, places_outside
from spanets.runs.folder import RECIPE
from spanets.sources import Source
from spanets.weights import WeightsError
from spanets_runtime.errors import UsageError, UserError

R = TypeVar("R", bound=Recipe)


def info_recipe(source: Source, kind: type[R]) -> R:
    """Returns the recipe that a checkpoint was trained by.

    Raises:
        WeightsError: it is none, or one of another task.
    """
    try:
        recipe = parse_recipe(source.info.recipe, origin=source.word)
    except UsageError as error:
        raise WeightsError(f"{source.word}: damaged ({error})") from None
    if not isinstance(recipe, kind):
        raise WeightsError(f"{source.word}: damaged, its recipe is for {recipe.task}")
    return recipe


def own_recipe(source: Source, kind: type[R], trusted: bool) -> R:
    """Returns the recipe that says which images a checkpoint is measured on.

    Args:
        source: The checkpoint.
        kind: Of its task.
        trusted: Whether the user lets the checkpoint decide.

    Raises:
        UsageError: the checkpoint lies in no run folder of its own, or its data are elsewhere.
        WeightsError: a damaged recipe.
    """
    recipe = info_recipe(source, kind)
    own = recipe_beside(
        source.path, recipe
    )  # of a run that went on with data elsewhere, the newer one
    if trusted or recipe.data.root is None:
        return own or recipe
    if own is None:
        raise UsageError(
            f"{source.word}: does not lie in the folder of its run, and a checkpoint alone does "
            f"not decide which images are read; name a data set with --data, or add {FLAG}"
        )
    places = [f"{k} {why}" for k, why in places_outside(own).items() if k.startswith("data.")]
    if places:
        raise UsageError(
            f"{source.word}: in its recipe {', '.join(places)}; add {FLAG} to fetch from there, or "
            "name a data set with --data"
        )
    return own


def recipe_beside(path: Path | None, recipe: R) -> R | None:
    """Returns the recipe of the run folder that a checkpoint lies in, if it is the same run's."""
    if path is None:
        return None
    try:
        beside = load_recipe(str(path.parent / RECIPE), trusted=True)
    except UserError:
        return None
    same = beside.task == recipe.task and beside.model == recipe.model
    return beside if isinstance(beside, type(recipe)) and same else None
