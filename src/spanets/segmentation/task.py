"""How a segmentation run is made from its recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch import nn

import spanets
from spanets.backbones.dense import DenseBackbone
from spanets.checkpoint import Card
from spanets.data.kept import Kept
from spanets.data.loaders import Loaders
from spanets.recipe import SegmentationRecipe
from spanets.segmentation.data import make_loaders, preprocessing_of
from spanets.segmentation.evaluation import evaluate, evaluation_images
from spanets.segmentation.module import Segmentation
from spanets.segmentation.report import describe_metrics, plot_examples
from spanets.training.callbacks import Row
from spanets.training.report import plot_curves
from spanets.training.task import Picture, Plan
from spanets.weights import LoadReport
from spanets_runtime.errors import UsageError, first_line


class SegmentationPlan(Plan[SegmentationRecipe]):
    """The plan of semantic segmentation."""

    score = "val/mIoU"
    shown: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/loss": "val loss",
        "val/mIoU": "val mIoU",
    }
    eval_batch = 1
    evaluate = staticmethod(evaluate)
    describe_metrics = staticmethod(describe_metrics)

    def check_batch(self, size: int) -> None:
        """Raises a UsageError for a batch of one, of which batch norm has no variance."""
        if size < 2:
            raise UsageError(
                "optim.batch_size gives each device one image, and batch norm needs two; raise it"
            )

    def make_loaders(self, batch_size: int, processes: int, kept: Kept) -> Loaders:
        """Makes the loaders of a recipe; see `data.segmentation.make_loaders`."""
        return make_loaders(self.recipe, batch_size, processes, kept)

    def make_card(self, classes: list[str]) -> Card:
        """Describes the segmenter."""
        model = self.recipe.model
        return Card(
            model=model.name,
            model_args=model.args,
            classes=classes,
            preprocessing=preprocessing_of(self.recipe.data, classes),
            recipe=self.recipe.to_dict(),
            version=spanets.__version__,
            task="segmentation",
            head={
                "kind": model.head,
                "args": model.head_args,
                "frozen_stages": model.frozen_stages,
            },
        )

    def load_weights(self, model: nn.Module, path: str | Path) -> LoadReport:
        """Loads the backbone's weights: a classifier's or a segmenter's, ours or released."""
        body: DenseBackbone = model.backbone  # type: ignore[assignment]
        return body.load(path, self.recipe.model.weights_ema)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError if the backbone does not take the recipe's crops."""
        name, side = self.recipe.model.name, self.recipe.data.crop
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, 3, side, side))
        # Whatever the model raises, and models check sizes in every way there is.
        except Exception as error:
            raise UsageError(
                f"model {name} cannot take images of {side}x{side} pixels ({first_line(error)}); "
                "set data.crop or model.args"
            ) from error
        model.train()

    def make_module(self, model: nn.Module, card: Card, updates: int) -> L.LightningModule:
        """Makes what trains the segmenter."""
        return Segmentation(model, card, self.recipe, updates)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns learning curves, and some images with mask and prediction."""
        metrics = {f"val/{name}": name for name in ("mIoU", "mAcc", "aAcc")}
        title, loss = self.recipe.model.name, "cross entropy"

        def draw_examples(path: Path) -> None:
            checkpoint = Path(results["checkpoint"])
            card = self.make_card(results["classes"])
            _, samples = evaluation_images(checkpoint, card, trusted=True)
            plot_examples(checkpoint, samples, path)

        return {
            "learning_curve": lambda path: plot_curves(history, path, title, loss, metrics),
            "examples": draw_examples,
        }
