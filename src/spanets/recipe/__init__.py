"""What a run can say: sections of typed values, read from YAML and the command line.

`sections` holds what all tasks share, the wings what is their own, `reading` how they are read.
"""

from spanets.recipe.reading import (
    describe_repeated,
    known_keys,
    known_ranges,
    list_recipes,
    load_recipe,
    parse_recipe,
)
from spanets.recipe.sections import Data, Model, Optim, Ranges, Recipe, Trainer

__all__ = [
    "Data",
    "Model",
    "Optim",
    "Ranges",
    "Recipe",
    "Trainer",
    "describe_repeated",
    "known_keys",
    "known_ranges",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
]
