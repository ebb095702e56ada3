"""How a detection run is made from its recipe."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
from torch import nn

import spanets
from spanets.backbones.dense import DenseBackbone
from spanets.checkpoint import Card
from spanets.data.kept import Kept
from spanets.data.loaders import Loaders
from spanets.detection import PAPERS, describe_detector, has_masks
from spanets.detection.data import make_loaders, preprocessing_of
from spanets.detection.decay import count_layers
from spanets.detection.evaluation import evaluate
from spanets.detection.module import DetectionModule
from spanets.detection.report import describe_metrics
from spanets.recipe import DetectionRecipe
from spanets.training.callbacks import Row
from spanets.training.report import plot_curves
from spanets.training.task import Picture, Plan
from spanets.weights import LoadReport
from spanets_runtime.errors import UsageError, require


class DetectionPlan(Plan[DetectionRecipe]):
    """The plan of object detection and instance segmentation."""

    score = "val/box_ap"
    shown: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/box_ap": "box AP",
        "val/mask_ap": "mask AP",
    }
    eval_batch = 2
    evaluate = staticmethod(evaluate)
    describe_metrics = staticmethod(describe_metrics)

    def __init__(self, recipe: DetectionRecipe) -> None:
        super().__init__(recipe)
        self.category_ids: list[int] = []

    def make_loaders(self, batch_size: int, processes: int, kept: Kept) -> Loaders:
        """Makes the loaders of a recipe; see `data.detection.make_loaders`."""
        require("faster_coco_eval", "detection")  # before hours of training, not after
        recipe = self.recipe
        masks = has_masks(recipe.model.head)
        loaders = make_loaders(recipe.data, masks, recipe.seed, batch_size, processes)
        dataset: Any = loaders.train.dataset
        self.category_ids = dataset.data.category_ids
        return loaders

    def make_card(self, classes: list[str]) -> Card:
        """Describes the detector, with the numbers that the data set has for its classes."""
        model = self.recipe.model
        try:
            settings = replace(PAPERS[model.head], **model.sizes())  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(f"model.{error}") from None
        return Card(
            model=model.name,
            model_args=model.args,
            classes=classes,
            preprocessing=preprocessing_of(self.recipe.data),
            recipe=self.recipe.to_dict(),
            version=spanets.__version__,
            task="detection",
            head={
                **describe_detector(model.head, model.frozen_stages, settings),
                "category_ids": self.category_ids,
            },
        )

    def load_weights(self, model: nn.Module, path: str | Path) -> LoadReport:
        """Loads the backbone's weights: a classifier's or a detector's, ours or released."""
        body: DenseBackbone = model.backbone.body  # type: ignore[union-attr, assignment]
        return body.load(path, self.recipe.model.weights_ema)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError for settings that do not go with the detector."""
        optim = self.recipe.optim
        if self.recipe.trainer.compile:
            raise UsageError("trainer.compile does not go with detectors, whose shapes change")
        if self.recipe.trainer.precision == "bf16-true":
            raise UsageError(
                "trainer.precision is bf16-true, in which boxes are off by up to 4 pixels; "
                "use bf16-mixed"
            )
        for key in ("label_smoothing", "min_lr"):
            if getattr(optim, key):
                raise UsageError(f"optim.{key} is {getattr(optim, key)}, must be 0 for detectors")
        if optim.warmup_epochs and optim.warmup_updates:
            raise UsageError(
                f"optim.warmup_epochs is {optim.warmup_epochs} and optim.warmup_updates "
                f"{optim.warmup_updates}; one must be 0"
            )
        if optim.layer_decay is not None:
            count_layers(name for name, _ in model.named_parameters())

    def make_module(self, model: nn.Module, card: Card, updates: int) -> L.LightningModule:
        """Makes what trains the detector."""
        return DetectionModule(model, card, self.recipe, updates)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns learning curves."""
        metrics = {"val/box_ap": "box AP", "val/box_ap50": "box AP50", "val/mask_ap": "mask AP"}
        title, loss = self.recipe.model.name, "sum of the losses"
        return {"learning_curve": lambda path: plot_curves(history, path, title, loss, metrics)}
