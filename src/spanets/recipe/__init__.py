"""What a run can say: sections of typed values, read from YAML and the command line.

`sections` holds what all tasks share, a file a task what is its own, `reading` how they are read.
"""

from spanets.classification.recipe import ClassificationData, ClassificationRecipe
from spanets.detection.recipe import (
    DetectionData,
    DetectionModel,
    DetectionOptim,
    DetectionRecipe,
)
from spanets.recipe.reading import (
    RECIPES,
    describe_repeated,
    known_keys,
    known_ranges,
    list_recipes,
    load_recipe,
    parse_recipe,
)
from spanets.recipe.sections import Data, Model, Optim, Ranges, Recipe, Trainer
from spanets.segmentation.recipe import (
    SegmentationData,
    SegmentationModel,
    SegmentationOptim,
    SegmentationRecipe,
)

__all__ = [
    "RECIPES",
    "ClassificationData",
    "ClassificationRecipe",
    "Data",
    "DetectionData",
    "DetectionModel",
    "DetectionOptim",
    "DetectionRecipe",
    "Model",
    "Optim",
    "Ranges",
    "Recipe",
    "SegmentationData",
    "SegmentationModel",
    "SegmentationOptim",
    "SegmentationRecipe",
    "Trainer",
    "describe_repeated",
    "known_keys",
    "known_ranges",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
]
