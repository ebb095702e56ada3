"""The Lightning module of numbers from images: loss and metrics."""

from collections.abc import Mapping

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.regression.metrics import measure
from spanets.regression.recipe import RegressionOptim, RegressionRecipe
from spanets.regression.scale import Scale
from spanets.training.image_level_module import TargetsModule


def value_losses(optim: RegressionOptim, outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the loss of each image (B,), a mean over its standardized numbers."""
    if optim.loss == "mse":
        losses = F.mse_loss(outputs, targets, reduction="none")
    elif optim.loss == "mae":
        losses = F.l1_loss(outputs, targets, reduction="none")
    else:
        losses = F.huber_loss(outputs, targets, reduction="none", delta=optim.huber_delta)
    return losses.mean(1)


class Regression(TargetsModule[RegressionRecipe]):
    """Trains a model of numbers by a recipe.

    Args:
        model: Maps images (B, 3, S, S) to standardized numbers (B, names).
        info: Metadata for its checkpoints, with the scale.
        recipe: The recipe.
        steps_per_epoch: Optimizer updates in an epoch.
    """

    score = "r2"

    def __init__(
        self, model: nn.Module, info: ModelInfo, recipe: RegressionRecipe, steps_per_epoch: int
    ) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        self.scale = Scale.read(info, "the run")

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the training loss of each image (B,)."""
        return value_losses(self.recipe.optim, outputs, targets)

    def val_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the same loss."""
        return value_losses(self.recipe.optim, outputs, targets)

    def measure(
        self, outputs: NDArray[np.float64], targets: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """Returns the metrics of all validation images, in the data's units."""
        predicted, true = self.scale.restore(outputs), self.scale.restore(targets)
        return measure(predicted, true, self.info.classes)[0]
