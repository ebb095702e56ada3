"""What a run can say: sections of typed values, read from YAML and the command line.

`keys` declares a key; `sections` holds those that all tasks share, the wings their own. `reading`
reads them, `documentation` shows them.
"""

from spanets.recipe.reading import (
    describe_repeated,
    known_keys,
    known_ranges,
    list_recipes,
    load_recipe,
    parse_recipe,
)
from spanets.recipe.sections import Data, Model, Optim, Recipe, Trainer

__all__ = [
    "Data",
    "Model",
    "Optim",
    "Recipe",
    "Trainer",
    "describe_repeated",
    "known_keys",
    "known_ranges",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
]
