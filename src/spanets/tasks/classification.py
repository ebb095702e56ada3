"""Image classification: loss, metrics, optimizer and schedule of a recipe."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from spanets.checkpoint import CARD_KEY, Card
from spanets.data.classification import make_mixing
from spanets.data.sampler import seed_sample
from spanets.errors import UserError
from spanets.recipe import Recipe

# AUROC keeps every prediction until the epoch ends: no burden for the data sets that people
# bring, but one for ImageNet, whose results are never quoted in it.
MAX_AUROC_CLASSES = 100

# Tells the random draws of a training step from those of an image with the same numbers.
_STEP = 2**32 - 1


class Classification(L.LightningModule):
    """Trains a classifier by a recipe; its checkpoints carry the `Card`.

    Args:
        model: From images (B, 3, S, S) to logits (B, classes).
        card: What its checkpoints say about it.
        recipe: Loss, mixing, optimizer and schedule.
        steps_per_epoch: Updates of the optimizer in an epoch.
    """

    def __init__(self, model: nn.Module, card: Card, recipe: Recipe, steps_per_epoch: int) -> None:
        super().__init__()
        self.model = model
        self.card = card
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        classes = len(card.classes)
        self.mixing = make_mixing(recipe.data, recipe.optim.label_smoothing, classes)
        self.val_metrics = metrics_for(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        return self.model(images)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds mixing, dropout and drop path by (seed, epoch, batch).

        So a run resumed from a checkpoint draws what the uninterrupted one would have drawn.
        """
        seed_sample(self.recipe.seed, self.current_epoch, _STEP, batch_idx)
        if self.device.type != "cpu":
            torch.manual_seed(torch.initial_seed())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the cross entropy of a batch against its (mixed, smoothed or soft) targets."""
        images, targets = batch
        smoothing = self.recipe.optim.label_smoothing
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
            smoothing = 0.0  # the mixed targets are smoothed already
        loss = F.cross_entropy(self(self._lay_out(images)), targets, label_smoothing=smoothing)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}, batch "
                f"{batch_idx + 1}; lower optim.lr, set optim.clip_grad or use precision 32-true"
            )
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to loss and metrics."""
        images, labels = batch
        logits = self(self._lay_out(images))
        self.log("val/loss", F.cross_entropy(logits, labels), batch_size=len(labels))
        update_metrics(self.val_metrics, logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the epoch."""
        values = self.val_metrics.compute()
        values.pop("confusion", None)
        for name, value in values.items():
            self.log(f"val/{name}", value, prog_bar=name == "accuracy")
        self.val_metrics.reset()

    def configure_optimizers(self) -> Any:
        """Makes timm's optimizer, and its cosine schedule with warm-up, stepped every update."""
        optim = self.recipe.optim
        scale = optim.batch_size / optim.lr_batch_size if optim.lr_batch_size else 1.0
        optimizer = create_optimizer_v2(
            self.model,
            opt=optim.name,
            lr=optim.lr * scale,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            betas=tuple(optim.betas),
        )
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=self.recipe.trainer.epochs,
            warmup_epochs=optim.warmup_epochs,
            warmup_lr=optim.warmup_lr,
            min_lr=optim.min_lr,
            cooldown_epochs=optim.cooldown_epochs,
            step_on_epochs=False,
            updates_per_epoch=self.steps_per_epoch,
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps timm's scheduler by the number of updates."""
        scheduler.step_update(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the card."""
        checkpoint[CARD_KEY] = self.card.to_dict()

    def _lay_out(self, images: Tensor) -> Tensor:
        if self.recipe.trainer.channels_last:
            return images.contiguous(memory_format=torch.channels_last)
        return images


def metrics_for(classes: int) -> MetricCollection:
    """Makes the metrics of a data set with this many classes, all in one pass.

    Accuracy (top-1; top-5 from six classes up), macro F1, AUROC (of the second class where there
    are two, else the mean of one against the rest), and the confusion matrix.
    """
    metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(classes, average="micro")}
    if classes > 5:
        metrics["accuracy_top5"] = MulticlassAccuracy(classes, top_k=5, average="micro")
    metrics["f1"] = MulticlassF1Score(classes, average="macro")
    if classes == 2:
        metrics["auroc"] = SecondClassAUROC()
    elif classes <= MAX_AUROC_CLASSES:
        metrics["auroc"] = MulticlassAUROC(classes)
    metrics["confusion"] = MulticlassConfusionMatrix(classes)
    return MetricCollection(metrics, compute_groups=False)


class SecondClassAUROC(BinaryAUROC):
    """AUROC of the probability of the second of two classes."""

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Takes probabilities (B, 2) and labels (B,)."""
        super().update(probabilities[:, 1], labels)


def update_metrics(metrics: MetricCollection, logits: Tensor, labels: Tensor) -> None:
    """Adds logits (B, classes) and labels (B,)."""
    metrics.update(logits.float().softmax(1), labels)
