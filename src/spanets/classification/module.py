"""The Lightning module of image classification: loss and metrics."""

import torch.nn.functional as F
from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.classification.data import make_mixing, standardize
from spanets.classification.metrics import metrics_for, update_metrics
from spanets.classification.recipe import ClassificationRecipe
from spanets.training.module import RecipeModule
from spanets.training.sums import ExactMean


class Classification(RecipeModule[ClassificationRecipe]):
    """Trains a classifier by a recipe.

    Args:
        model: Maps images (B, 3, S, S) to logits (B, classes).
        info: Metadata for its checkpoints.
        recipe: The recipe, with loss, mixing, optimizer and schedule.
        steps_per_epoch: Optimizer updates in an epoch.

    Raises:
        UsageError: settings exclude each other, or the optimizer is unknown.
    """

    def __init__(
        self, model: nn.Module, info: ModelInfo, recipe: ClassificationRecipe, steps_per_epoch: int
    ) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        classes = len(info.classes)
        self.mixing = make_mixing(recipe.data, recipe.optim.label_smoothing, classes)
        self.val_metrics = metrics_for(classes, shared=True)
        # Lightning's mean is inexact if processes have different numbers of images.
        self.val_loss = ExactMean()

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        return self.model(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the cross entropy of a batch against its (mixed, smoothed or soft) targets."""
        pixels, targets = batch
        images = standardize(pixels, self.recipe.data).to(self.dtype)
        smoothing = self.recipe.optim.label_smoothing
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
            smoothing = 0.0  # the mixed targets are smoothed already
        loss = F.cross_entropy(self(self.lay_out(images)), targets, label_smoothing=smoothing)
        return self.log_loss(loss, batch_idx)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to loss and metrics."""
        images, labels = batch
        if not len(labels):  # no image of the batch is readable
            return
        logits = self(self.lay_out(images)).float()
        loss = F.cross_entropy(logits, labels)
        self.val_loss.update(loss, len(labels))
        update_metrics(self.val_metrics, logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the epoch."""
        self.log("val/loss", self.val_loss.compute())
        self.val_loss.reset()
        values = self.val_metrics.compute()
        del values["confusion"]
        for name, value in values.items():
            self.log(f"val/{name}", value, prog_bar=name == "accuracy")
        self.val_metrics.reset()
