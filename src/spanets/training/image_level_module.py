"""The Lightning modules of tasks on whole images: what their training and validation share."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from spanets.checkpoint import ModelInfo
from spanets.data.image_level.transforms import standardize
from spanets.training.groups import check_head_rate, group_with_head
from spanets.training.module import RecipeModule
from spanets.training.sums import ExactMean

R = TypeVar("R", bound=Any)


class ImageLevelModule(RecipeModule[R]):
    """Trains a model that maps images (B, 3, S, S) to a row of outputs each (B, outputs)."""

    def __init__(self, model: nn.Module, info: ModelInfo, recipe: R, steps_per_epoch: int) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        check_head_rate(recipe.optim.lr, recipe.optim.head_lr)
        # Lightning's mean is inexact if processes have different numbers of images.
        self.val_loss = ExactMean()

    def forward(self, images: Tensor) -> Tensor:
        """Returns outputs (B, outputs)."""
        return self.model(images)

    def prepare(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns standardized images, targets, and the weights of the images if there are any."""
        pixels, targets, *given = batch
        images = standardize(pixels, self.recipe.data).to(self.dtype)
        return images, targets, given[0] if given else None

    def make_parameter_groups(self) -> nn.Module | list[dict[str, Any]]:
        """Returns the model, or its parameter groups if the head has a learning rate of its own."""
        optim = self.recipe.optim
        if optim.head_lr is None:
            return self.model
        return group_with_head(self.model, optim, optim.head_lr)


class TargetsModule(ImageLevelModule[R]):
    """Trains with a loss of each image, and validates on all outputs of an epoch at once.

    A task adds the losses and the metrics.
    """

    def __init__(self, model: nn.Module, info: ModelInfo, recipe: R, steps_per_epoch: int) -> None:
        super().__init__(model, info, recipe, steps_per_epoch)
        self.collected = Collected()

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the training loss of each image (B,)."""

    @abstractmethod
    def val_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the validation loss of each image (B,)."""

    @abstractmethod
    def measure(
        self, outputs: NDArray[np.float64], targets: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """Returns the metrics of all validation images by name; see `Task.scores`."""

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        images, targets, weights = self.prepare(batch)
        losses = self.losses(self(self.lay_out(images)).float(), targets)
        return self.log_loss((losses if weights is None else losses * weights).mean(), batch_idx)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to the loss, and collects its outputs."""
        images, targets = batch
        if not len(targets):  # no image of the batch is readable
            return
        outputs = self(self.lay_out(images)).float()
        self.val_loss.update(self.val_losses(outputs, targets).mean(), len(targets))
        self.collected.update(outputs, targets)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the epoch."""
        self.log("val/loss", self.val_loss.compute())
        outputs, targets = self.collected.compute()
        self.val_loss.reset()
        self.collected.reset()
        for name, value in self.measure(outputs, targets).items():
            self.log(f"val/{name}", value, prog_bar=name == self.score)

    @property
    @abstractmethod
    def score(self) -> str:
        """The name of the main metric."""


class Collected(Metric):
    """All outputs and targets of an epoch, of all processes."""

    full_state_update = False
    outputs: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("outputs", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Adds a batch: two tensors (B, outputs)."""
        self.outputs.append(outputs)
        self.targets.append(targets)

    def compute(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns two arrays (images, outputs)."""
        outputs, targets = (dim_zero_cat(x).double().cpu() for x in (self.outputs, self.targets))
        return outputs.numpy(), targets.numpy()
