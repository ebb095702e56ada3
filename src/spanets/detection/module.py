"""The Lightning module of object detection: losses, metrics and learning rates."""

import math
from typing import Any

from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.detection import Target, has_masks
from spanets.detection.decay import count_layers, scale_of
from spanets.detection.metrics import DetectionMetrics
from spanets.detection.network.pasting import paste_lazily
from spanets.detection.recipe import DetectionRecipe
from spanets.training.groups import group_parameters
from spanets.training.module import RecipeModule

DECAY_RATE = 0.1

Batch = tuple[list[Tensor], list[Target]]


class DetectionModule(RecipeModule[DetectionRecipe]):
    """Trains a detector by a recipe.

    Args:
        model: A detector, which returns losses in training and detections in evaluation.
        info: Metadata for its checkpoints.
        recipe: The recipe, with optimizer and schedule.
        steps_per_epoch: Optimizer updates in an epoch.

    Raises:
        UsageError: an unknown optimizer.
    """

    def __init__(
        self, model: nn.Module, info: ModelInfo, recipe: DetectionRecipe, steps_per_epoch: int
    ) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        self.val_metrics: DetectionMetrics | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the sum of the detector's losses, and logs each."""
        images, targets = batch
        losses: dict[str, Tensor] = self.model(images, targets)
        every: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), sync_dist=True, **every)
        total = sum(losses.values(), start=images[0].new_zeros(()))
        return self.log_loss(total, batch_idx, len(images))

    def on_validation_epoch_start(self) -> None:
        """Creates the metrics of the validation images."""
        loader: Any = self.trainer.val_dataloaders
        masks = has_masks(self.recipe.model.head)
        sigma = self.recipe.data.keypoint_sigma
        self.val_metrics = DetectionMetrics(loader.dataset.data, masks, True, sigma)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the detections of a batch to the metrics."""
        assert self.val_metrics is not None
        images, targets = batch
        self.val_metrics.update(targets, find_objects(self.model, images, targets))

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the epoch, except undefined ones."""
        assert self.val_metrics is not None
        for name, value in self.val_metrics.compute().items():
            if not math.isnan(value):
                self.log(f"val/{name}", value, prog_bar=name.endswith("_ap"))
        self.val_metrics = None

    def make_parameter_groups(self) -> list[dict[str, Any]]:
        """Groups the parameters by weight decay and, with layer decay, by depth."""
        optim = self.recipe.optim
        rate = optim.layer_decay
        if rate is None:
            return group_parameters(self.model, optim.weight_decay, lambda name: 1.0)
        layers = count_layers(name for name, _ in self.model.named_parameters())
        return group_parameters(
            self.model, optim.weight_decay, lambda name: scale_of(name, layers, rate)
        )

    def describe_schedule(self) -> dict[str, Any]:
        """Returns a schedule of linear warm-up and steps at the milestones."""
        optim = self.recipe.optim
        return {
            "sched": "multistep",
            "decay_milestones": list(optim.milestones),
            "decay_rate": DECAY_RATE,
            "warmup_epochs": optim.warmup_epochs or optim.warmup_updates / self.steps_per_epoch,
        }


def find_objects(
    model: nn.Module, images: list[Tensor], targets: list[Target]
) -> list[dict[str, Any]]:
    """Returns a detector's detections in pixels of the image files.

    Args:
        model: A detector in evaluation mode.
        images: Preprocessed images.
        targets: Targets with "size", the height and width of the image file.
    """
    sizes = [(int(height), int(width)) for height, width in (t["size"] for t in targets)]
    found = model(images, sizes=sizes, paste=False)
    return [paste_lazily(*pair) for pair in zip(found, sizes, strict=True)]
