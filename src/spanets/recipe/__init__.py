"""Recipes: sections of typed keys, read from YAML and the command line.

`keys` declares a key. `sections` holds the keys that all tasks share; each task's package holds its
own. `reading` reads recipes, and `documentation` prints and documents them.
"""

from spanets.recipe.reading import (
    change_values,
    describe_repeated,
    known_keys,
    known_ranges,
    list_recipes,
    load_recipe,
    parse_recipe,
    read_recipe_values,
)
from spanets.recipe.sections import Data, Model, Optim, Recipe, Trainer

__all__ = [
    "Data",
    "Model",
    "Optim",
    "Recipe",
    "Trainer",
    "change_values",
    "describe_repeated",
    "known_keys",
    "known_ranges",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
    "read_recipe_values",
]
