"""The Lightning module that the training modules of all tasks extend."""

from typing import Any, Generic, TypeVar

import lightning as L
import torch
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from spanets.checkpoint import INFO_KEY, ModelInfo
from spanets.data.sampler import seed_sample
from spanets.recipe import Recipe
from spanets.training.devices import shard
from spanets.training.earlier import follow_names
from spanets.training.errors import DivergedError
from spanets.training.optim import check_optimizer, describe_lowered, make_optimizer

R = TypeVar("R", bound=Recipe)

# Keeps the random draws of a training step different from those of an image.
_STEP = 2**32 - 1


class RecipeModule(L.LightningModule, Generic[R]):
    """Trains a model with a recipe; its checkpoints carry the `ModelInfo`.

    A task adds its training and validation steps; the training step ends with `log_loss`.

    Args:
        model: The model to train.
        info: Metadata of the model, for its checkpoints.
        recipe: The recipe, with loss, optimizer and schedule.
        steps_per_epoch: Optimizer updates in an epoch.

    Raises:
        UsageError: an unknown optimizer.
    """

    def __init__(self, model: nn.Module, info: ModelInfo, recipe: R, steps_per_epoch: int) -> None:
        super().__init__()
        check_optimizer(recipe.optim.name)
        self.model = model
        self.info = info
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.notes = describe_lowered(recipe.optim)  # lines for the user about rates and loss
        self._saved_names: list[str] = []  # parameter names of the resumed checkpoint

    def configure_model(self) -> None:
        """Shards the model over processes if the strategy has a device mesh (FSDP)."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds erasing, mixing, dropout and drop path by (seed, epoch, batch, rank).

        A resumed run then draws the same random numbers as an uninterrupted one.
        """
        seed_sample(self.recipe.seed, self.current_epoch, _STEP, batch_idx, self.global_rank)
        if self.device.type != "cpu":
            torch.manual_seed(torch.initial_seed())  # the accelerators' generators as well

    def log_loss(self, loss: Tensor, batch_idx: int, images: int | None = None) -> Tensor:
        """Logs the loss and the learning rate of a training step; returns the loss.

        Args:
            loss: The loss, a scalar.
            batch_idx: Index of the batch in the epoch.
            images: Number of images in the batch, if Lightning cannot infer it.

        Raises:
            DivergedError: the loss is not finite.
        """
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}, batch "
                f"{batch_idx + 1}; lower optim.lr, set optim.clip_grad or use precision 32-true"
            )
        every: dict[str, Any] = {"batch_size": images}
        self.log("loss", loss.detach(), prog_bar=True, logger=False, **every)
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, **every)
        self.log("train/lr", self._learning_rate(), on_step=False, on_epoch=True, **every)
        return loss

    def make_parameter_groups(self) -> nn.Module | list[dict[str, Any]]:
        """Returns the model, or its parameter groups with an `lr_scale` each."""
        return self.model

    def describe_schedule(self) -> dict[str, Any]:
        """Returns the task's arguments for timm's `create_scheduler_v2`."""
        return {"sched": "cosine", "warmup_epochs": self.recipe.optim.warmup_epochs}

    def configure_optimizers(self) -> Any:
        """Returns timm's optimizer and its schedule with warm-up, stepped every update."""
        optim = self.recipe.optim
        mixed = self.recipe.trainer.precision.endswith("-mixed")
        optimizer = make_optimizer(self.make_parameter_groups(), optim, fused=not mixed)
        follow_names(optimizer, self, self._saved_names)
        settings: dict[str, Any] = {
            "num_epochs": self.recipe.trainer.epochs,
            # The schedule would rise to ends above its peak.
            "warmup_lr": min(optim.warmup_lr, optim.peak_lr),
            "min_lr": min(optim.min_lr, optim.peak_lr),
            "cooldown_epochs": optim.cooldown_epochs,
            "step_on_epochs": False,
            "updates_per_epoch": self.steps_per_epoch,
        }
        scheduler, _ = create_scheduler_v2(optimizer, **{**settings, **self.describe_schedule()})
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps timm's scheduler by the number of updates."""
        scheduler.step_update(self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the saved parameter names, to match the optimizer's states by name."""
        self._saved_names = list(checkpoint["state_dict"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the metadata."""
        checkpoint[INFO_KEY] = self.info.to_dict()

    def _learning_rate(self) -> float:
        """Returns the learning rate of the next update; with layer decay, that of the head."""
        return max(group["lr"] for group in self.trainer.optimizers[0].param_groups)

    def lay_out(self, images: Tensor) -> Tensor:
        """Returns images (B, 3, H, W) in the memory layout of the recipe."""
        if self.recipe.trainer.channels_last:
            return images.contiguous(memory_format=torch.channels_last)
        return images
