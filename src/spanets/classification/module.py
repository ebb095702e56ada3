"""The Lightning module of image classification: loss and metrics."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.classification.data import make_mixing
from spanets.classification.distillation import FeatureImitation, imitation_loss, make_teacher
from spanets.classification.losses import class_weights, describe_weights, make_loss
from spanets.classification.metrics import balanced_accuracy, metrics_for, update_metrics
from spanets.classification.ordinal import rank_metrics
from spanets.classification.recipe import ClassificationRecipe
from spanets.data.image_level.transforms import preprocessing_of
from spanets.training.groups import group_with_head
from spanets.training.image_level_module import ImageLevelModule
from spanets_runtime.errors import UsageError
from spanets_runtime.preprocessing import Preprocessing


class Classification(ImageLevelModule[ClassificationRecipe]):
    """Trains a classifier by a recipe.

    Args:
        model: Maps images (B, 3, S, S) to logits (B, classes).
        info: Metadata for its checkpoints.
        recipe: The recipe, with loss, mixing, optimizer and schedule.
        steps_per_epoch: Optimizer updates in an epoch.
        counts: Number of training images of each class.

    Raises:
        UsageError: settings exclude each other, the optimizer is unknown, or the teacher does not
            fit.
    """

    def __init__(
        self,
        model: nn.Module,
        info: ModelInfo,
        recipe: ClassificationRecipe,
        steps_per_epoch: int,
        counts: Sequence[int] = (),
    ) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        classes = len(info.classes)
        self.mixing = make_mixing(recipe.data, recipe.optim.label_smoothing, classes)
        self.loss = make_loss(recipe.optim, counts)
        if (weights := class_weights(recipe.optim, counts)) is not None:
            self.notes.append(describe_weights(weights, info.classes, counts))
        self._prepare_teacher()
        self.val_metrics = metrics_for(classes, shared=True)

    def _prepare_teacher(self) -> None:
        settings, self.teacher, self.imitation = self.recipe.distill, None, None
        if settings.teacher is None:
            return
        student = Preprocessing.parse(preprocessing_of(self.recipe.data), "the recipe")
        self.teacher = make_teacher(settings, self.info.classes, student)
        if settings.features:
            if self.recipe.trainer.strategy == "fsdp":  # which shards the model alone
                raise UsageError("trainer.strategy fsdp cannot be combined with distill.features")
            channels = (self.model.num_features, self.teacher.network.num_features)
            self.imitation = FeatureImitation(*channels)  # type: ignore[arg-type]

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Returns the loss of a batch against its (mixed, smoothed or soft) targets."""
        images, targets, weights = self.prepare(batch)
        smoothing = self.recipe.optim.label_smoothing
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
            smoothing = 0.0  # the mixed targets are smoothed already
        images = self.lay_out(images)
        if self.teacher is None:
            loss = self.loss(self(images), targets, smoothing, weights)
        else:
            loss = self._distilled_loss(images, targets, smoothing, weights)
        return self.log_loss(loss, batch_idx)

    def _distilled_loss(
        self, images: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None
    ) -> Tensor:
        assert self.teacher is not None
        settings, (wanted_features, wanted) = self.recipe.distill, self.teacher(images)
        if self.imitation is None:
            logits, imitated = self(images), 0.0
        else:
            model: Any = self.model
            maps = model.forward_features(images)
            logits, features = model.forward_head(maps), model.forward_head(maps, pre_logits=True)
            imitated = settings.features * self.imitation(features, wanted_features)
        loss = (1 - settings.weight) * self.loss(logits, targets, smoothing, weights)
        if wanted is not None:
            loss += settings.weight * imitation_loss(logits, wanted, settings.temperature)
        return loss + imitated

    def make_parameter_groups(self) -> nn.Module | list[dict[str, Any]]:
        """Returns the model, or its parameter groups and that of the imitation of features."""
        if self.imitation is None:
            return super().make_parameter_groups()
        groups = group_with_head(self.model, self.recipe.optim, self.recipe.optim.head_lr)
        return [*groups, {"params": list(self.imitation.parameters())}]

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
        confusion = values.pop("confusion")
        values["balanced_accuracy"] = balanced_accuracy(confusion)
        if self.recipe.data.ordered is not None:
            values.update(rank_metrics(confusion))
        for name, value in values.items():
            self.log(f"val/{name}", value, prog_bar=name == "accuracy")
        self.val_metrics.reset()
