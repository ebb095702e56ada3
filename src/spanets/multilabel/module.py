"""The Lightning module of several labels an image: loss and metrics."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.multilabel.losses import LabelLoss, describe_weights, positive_weights
from spanets.multilabel.metrics import measure
from spanets.multilabel.recipe import MultilabelRecipe
from spanets.training.image_level_module import TargetsModule
from spanets_runtime.tags import DEFAULT_THRESHOLD, sigmoid


class Multilabel(TargetsModule[MultilabelRecipe]):
    """Trains a model of several labels by a recipe.

    Args:
        model: Maps images (B, 3, S, S) to logits (B, labels).
        info: Metadata for its checkpoints.
        recipe: The recipe.
        steps_per_epoch: Optimizer updates in an epoch.
        counts: Number of training images with each label.
        images: Number of training images.
    """

    score = "map"

    def __init__(
        self,
        model: nn.Module,
        info: ModelInfo,
        recipe: MultilabelRecipe,
        steps_per_epoch: int,
        counts: Sequence[int],
        images: int,
    ) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        weights = positive_weights(recipe.optim, counts, images)
        if weights is not None:
            self.notes.append(describe_weights(weights, info.classes))
        self.loss = LabelLoss(recipe.optim, weights)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the training loss of each image (B,)."""
        return self.loss(outputs, targets)

    def val_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the plain binary cross entropy of each image (B,)."""
        losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return losses.mean(1)

    def measure(
        self, outputs: NDArray[np.float64], targets: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """Returns the metrics of all validation images, at thresholds of 0.5."""
        thresholds = [DEFAULT_THRESHOLD] * outputs.shape[1]
        return measure(outputs, sigmoid(outputs), targets, thresholds)[0]
