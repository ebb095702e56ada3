"""How a classification run is made from its recipe."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import lightning as L
import torch
from torch import nn

import spanets
from spanets.checkpoint import Card
from spanets.classification.data import make_loaders, preprocessing_of
from spanets.classification.evaluation import evaluate
from spanets.classification.module import Classification
from spanets.classification.report import describe_metrics, plot_confusion
from spanets.data.kept import Kept
from spanets.data.loaders import Loaders
from spanets.recipe import ClassificationRecipe
from spanets.training.batch_norm import refuse_single_values
from spanets.training.callbacks import Row
from spanets.training.report import plot_curves
from spanets.training.task import Picture, Plan
from spanets_runtime.errors import UsageError, first_line


class ClassificationPlan(Plan[ClassificationRecipe]):
    """The plan of image classification."""

    score = "val/accuracy"
    shown: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/loss": "val loss",
        "val/accuracy": "val accuracy",
    }
    evaluate = staticmethod(evaluate)
    describe_metrics = staticmethod(describe_metrics)

    def check_batch(self, size: int) -> None:
        """Raises a UsageError if images are to be mixed in pairs and their number is odd."""
        if (self.recipe.data.mixup or self.recipe.data.cutmix) and size % 2:
            raise UsageError(
                f"data.mixup and data.cutmix pair the images of a batch, and {size} a device is "
                "odd; choose another optim.batch_size"
            )

    def make_loaders(self, batch_size: int, processes: int, kept: Kept) -> Loaders:
        """Makes the loaders of a recipe; see `data.classification.make_loaders`."""
        return make_loaders(self.recipe, batch_size, processes, kept)

    def make_card(self, classes: list[str]) -> Card:
        """Describes the classifier."""
        return Card(
            model=self.recipe.model.name,
            model_args=self.recipe.model.args,
            classes=classes,
            preprocessing=preprocessing_of(self.recipe.data),
            recipe=self.recipe.to_dict(),
            version=spanets.__version__,
        )

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError if the model does not make logits of the recipe's images."""
        name, size = self.recipe.model.name, self.recipe.data.image_size
        try:
            with torch.no_grad():
                shape = tuple(model.eval()(torch.zeros(1, 3, size, size)).shape)
        # Whatever the model raises, and models check sizes in every way there is.
        except Exception as error:
            raise UsageError(
                f"model {name} cannot take images of {size}x{size} pixels ({first_line(error)}); "
                "set data.image_size or model.args"
            ) from error
        if shape != (1, classes):
            raise UsageError(f"model {name} returns {shape}, not logits (1, {classes})")
        model.train()

    def check_batch_norm(self, model: nn.Module, batch: int) -> None:
        """Raises a UsageError if so many images on one device are too few for batch norm."""
        size = self.recipe.data.image_size
        refuse_single_values(model, torch.zeros(1, 3, size, size), batch)

    def make_module(self, model: nn.Module, card: Card, updates: int) -> L.LightningModule:
        """Makes what trains the classifier."""
        return Classification(model, card, self.recipe, updates)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns learning curves and confusion matrix."""
        metrics = {"val/accuracy": "accuracy", "val/auroc": "AUROC", "val/f1": "F1"}
        title, loss = self.recipe.model.name, "cross entropy"
        return {
            "learning_curve": lambda path: plot_curves(history, path, title, loss, metrics),
            "confusion_matrix": partial(plot_confusion, results["confusion"], results["classes"]),
        }
