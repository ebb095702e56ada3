"""Image classification: loss, metrics, optimizer and schedule of a recipe."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from spanets.checkpoint import CARD_KEY, Card
from spanets.data.classification import make_mixing
from spanets.data.sampler import seed_sample
from spanets.recipe import ClassificationRecipe
from spanets.tasks.classification.metrics import metrics_for, update_metrics
from spanets.tasks.errors import DivergedError
from spanets.tasks.optim import check_optimizer, make_optimizer

# Tells the random draws of a training step from those of an image with the same numbers.
_STEP = 2**32 - 1


class Classification(L.LightningModule):
    """Trains a classifier by a recipe; its checkpoints carry the `Card`.

    Args:
        model: From images (B, 3, S, S) to logits (B, classes).
        card: What its checkpoints say about it.
        recipe: Loss, mixing, optimizer and schedule.
        steps_per_epoch: Updates of the optimizer in an epoch.

    Raises:
        UsageError: settings that exclude each other, or an unknown optimizer.
    """

    def __init__(
        self, model: nn.Module, card: Card, recipe: ClassificationRecipe, steps_per_epoch: int
    ) -> None:
        super().__init__()
        check_optimizer(recipe.optim.name)
        self.model = model
        self.card = card
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        classes = len(card.classes)
        self.mixing = make_mixing(recipe.data, recipe.optim.label_smoothing, classes)
        self.val_metrics = metrics_for(classes, shared=True)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        return self.model(images)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds mixing, dropout and drop path by (seed, epoch, batch, process).

        So a run resumed from a checkpoint draws what the uninterrupted one would have drawn.
        """
        seed_sample(self.recipe.seed, self.current_epoch, _STEP, batch_idx, self.global_rank)
        if self.device.type != "cpu":
            torch.manual_seed(torch.initial_seed())  # the accelerators' generators as well

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the cross entropy of a batch against its (mixed, smoothed or soft) targets."""
        images, targets = batch
        smoothing = self.recipe.optim.label_smoothing
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
            smoothing = 0.0  # the mixed targets are smoothed already
        loss = F.cross_entropy(self(self._lay_out(images)), targets, label_smoothing=smoothing)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}, batch "
                f"{batch_idx + 1}; lower optim.lr, set optim.clip_grad or use precision 32-true"
            )
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
        self.log("train/lr", self._learning_rate(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to loss and metrics."""
        images, labels = batch
        logits = self(self._lay_out(images)).float()
        loss = F.cross_entropy(logits, labels)
        self.log("val/loss", loss, batch_size=len(labels), sync_dist=True)
        update_metrics(self.val_metrics, logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the epoch."""
        values = self.val_metrics.compute()
        del values["confusion"]
        for name, value in values.items():
            self.log(f"val/{name}", value, prog_bar=name == "accuracy")
        self.val_metrics.reset()

    def configure_optimizers(self) -> Any:
        """Makes timm's optimizer, and its cosine schedule with warm-up, stepped every update."""
        optim = self.recipe.optim
        optimizer = make_optimizer(self.model, optim)
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=self.recipe.trainer.epochs,
            warmup_epochs=optim.warmup_epochs,  # type: ignore[arg-type] # fractions work
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

    def _learning_rate(self) -> float:
        """Returns the learning rate of the next update, with layer decay that of the head."""
        return max(group["lr"] for group in self.trainer.optimizers[0].param_groups)

    def _lay_out(self, images: Tensor) -> Tensor:
        if self.recipe.trainer.channels_last:
            return images.contiguous(memory_format=torch.channels_last)
        return images
