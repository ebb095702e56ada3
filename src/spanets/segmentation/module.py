"""The Lightning module of semantic segmentation: loss, metrics, optimizer and schedule."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.segmentation import Segmenter, infer
from spanets.segmentation.decay import stage_scales
from spanets.segmentation.labels import label_map
from spanets.segmentation.masks.values import IGNORED
from spanets.segmentation.metrics import make_confusion, summarise
from spanets.segmentation.recipe import SegmentationRecipe
from spanets.training.groups import group_parameters
from spanets.training.module import RecipeModule
from spanets.training.sums import ExactMean


class Segmentation(RecipeModule[SegmentationRecipe]):
    """Trains a segmenter by a recipe; its checkpoints carry the `ModelInfo`.

    Args:
        model: Maps images (B, 3, H, W) to logits (B, classes, H, W); in training mode, an
            auxiliary head adds its own logits.
        info: Metadata for its checkpoints.
        recipe: The recipe, with loss, optimizer and schedule.
        steps_per_epoch: Optimizer updates in an epoch.

    Raises:
        UsageError: an unknown optimizer.
    """

    model: Segmenter

    def __init__(
        self, model: nn.Module, info: ModelInfo, recipe: SegmentationRecipe, steps_per_epoch: int
    ) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        self.val_confusion = make_confusion(len(info.classes), shared=True)
        self.val_loss = ExactMean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the cross entropy of a batch, plus the weighted one of the auxiliary head."""
        images, masks = batch
        outputs = self.model(self.lay_out(images))
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        smoothing = self.recipe.optim.label_smoothing
        loss = pixel_loss(logits, masks, smoothing)
        for rest in auxiliary:
            weight = self.recipe.optim.auxiliary_weight
            loss = loss + weight * pixel_loss(rest, masks, smoothing)
        return self.log_loss(loss, batch_idx, len(images))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds an image to loss and metrics."""
        images, masks = batch
        logits = infer(self.model, self.lay_out(images), self.info.preprocessing)
        shrunk = F.interpolate(masks[None].float(), logits.shape[2:], mode="nearest-exact")
        self.val_loss.update(pixel_loss(logits, shrunk[0].long()))
        self.val_confusion.update(label_map(logits, *masks.shape[1:]), masks[0])

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the epoch."""
        for name, value in summarise(self.val_confusion.compute()).items():
            self.log(f"val/{name}", value, prog_bar=name == "mIoU")
        self.log("val/loss", self.val_loss.compute())
        self.val_confusion.reset()
        self.val_loss.reset()

    def make_parameter_groups(self) -> nn.Module | list[dict[str, Any]]:
        """Returns the model, or parameter groups with learning rates by stage (`stage_decay`)."""
        optim = self.recipe.optim
        if optim.stage_decay is None:
            return self.model
        scale_of = stage_scales(self.model, optim.stage_decay, optim.decay_layers)
        return group_parameters(self.model, optim.weight_decay, scale_of)

    def describe_schedule(self) -> dict[str, Any]:
        """Returns a polynomial schedule from the end of the warm-up to the end of the run."""
        optim = self.recipe.optim
        warmup = optim.warmup_epochs + optim.warmup_updates / self.steps_per_epoch
        return {
            "sched": "poly",
            "decay_rate": optim.power,
            "warmup_epochs": warmup,
            "warmup_prefix": True,
            "num_epochs": max(self.recipe.trainer.epochs - warmup, 1 / self.steps_per_epoch),
        }


def pixel_loss(logits: Tensor, masks: Tensor, smoothing: float = 0.0) -> Tensor:
    """Returns the mean cross entropy over all pixels, in which ignored pixels count as 0.

    The divisor includes ignored pixels, as in mmsegmentation. So a batch of ignored pixels has the
    loss 0.

    Args:
        logits: (B, classes, H, W).
        masks: Classes or `IGNORED`, (B, H, W).
        smoothing: Fraction of the target that is spread over all classes.
    """
    total = F.cross_entropy(
        logits.float(), masks, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    return total / torch.numel(masks)
