"""The task of numbers from images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.regression.recipe import RegressionData, RegressionRecipe
from spanets.training.image_level import ImageLevelTask
from spanets.training.options import EvalOptions, PredictOptions
from spanets.training.task import Picture, Predict
from spanets_runtime.errors import UsageError

if TYPE_CHECKING:
    import lightning as L

    from spanets.data.folds import Folds
    from spanets.data.loaders import Loaders
    from spanets.data.run_data import RunData
    from spanets.data.sources.table import TargetReader
    from spanets.regression.scale import Scale
    from spanets.sources import Source
    from spanets.training.callbacks import Row
    from spanets.training.report_parts import Examples, Scatter, Table


class RegressionTask(ImageLevelTask[RegressionRecipe]):
    """Estimates one or more numbers for each image.

    The network returns standardized numbers; `ModelInfo.head` holds their mean and deviation.
    """

    name = "regression"
    recipe_type = RegressionRecipe
    noun = "image model of numbers"
    usage = 'print(dict(zip(model.pretrained_cfg["label_names"], model(image)[0].tolist())))'
    score = "val/r2"
    scores = ("r2", "spearman", "loss")
    metric_labels: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/loss": "val loss",
        "val/r2": "val R²",
    }

    scale: Scale | None = None
    """Scale of the numbers, once the loaders are made."""

    @classmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns a function that estimates numbers."""
        from spanets.regression.predict import Regressor

        return Regressor(source)

    @classmethod
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        """Measures a model; see `regression.evaluation`."""
        from spanets.regression.evaluation import evaluate

        return evaluate(source, options)

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns the metrics as lines."""
        from spanets.regression.report import describe_metrics

        return describe_metrics(results)

    @classmethod
    def report_results(cls, results: Mapping[str, Any]) -> list[Table | Scatter]:
        """Returns the metrics of each number, and predicted against true numbers."""
        from spanets.regression.examples import report_results

        return report_results(results)

    @classmethod
    def find_examples(
        cls, source: Source, options: EvalOptions, results: Mapping[str, Any]
    ) -> Examples:
        """Returns images with small and large errors."""
        from spanets.regression.examples import find_examples

        return find_examples(source, options)

    @classmethod
    def exportable(cls, source: Source, features_only: bool) -> nn.Module:
        """Returns the model with outputs in the data's units, or its backbone."""
        from spanets.regression.scale import Scale, Scaled

        if features_only:
            return super().exportable(source, features_only)
        return Scaled(source.network, Scale.read(source.info, source.word)).eval()

    @classmethod
    def publishable(cls, source: Source) -> tuple[nn.Module, dict[str, Any]]:
        """Returns the network with a last layer in the data's units."""
        from spanets.regression.scale import Scale, fold_scale

        scale = Scale.read(source.info, source.word)
        return fold_scale(source.network, scale, source.word), {"units": "of the data"}

    @classmethod
    def interpret(cls, info: ModelInfo, outputs: Tensor) -> Tensor:
        """Returns the numbers in the data's units."""
        from spanets.regression.scale import Scale

        values = Scale.read(info, "the model").restore(outputs.float().cpu().numpy())
        return torch.from_numpy(np.asarray(values))

    @classmethod
    def evidence(cls, outputs: Tensor) -> Tensor:
        """Returns the standardized numbers."""
        return outputs.float()

    @classmethod
    def most_telling(cls, info: ModelInfo, outputs: Tensor) -> int:
        """Returns 0: the first number is explained."""
        return 0

    @classmethod
    def survey_table(cls, data: RegressionData) -> TargetReader:
        """Returns what reads the numbers of a recipe's table; cells may lack one."""
        from spanets.regression.tables import make_reader

        assert data.root is not None
        return replace(make_reader(data.root, data), may_miss=True)

    def draw_folds(self) -> Folds:
        """Returns the fold of each image of the recipe's table."""
        from spanets.data.image_level.tables import draw_folds
        from spanets.regression.tables import make_reader

        data = self.recipe.data
        if data.root is None:
            raise UsageError("data.root is not set; give the table: --data.root labels.csv")
        return draw_folds(data, make_reader(data.root, data))

    def make_loaders(self, batch_size: int, processes: int, run_data: RunData) -> Loaders:
        """Makes the loaders of a recipe; see `regression.data.make_loaders`."""
        from spanets.regression.data import make_loaders

        loaders, self.scale = make_loaders(self.recipe, batch_size, processes, run_data)
        return loaders

    def make_info(self, classes: list[str]) -> ModelInfo:
        """Returns the model's metadata, with the scale of the training images."""
        assert self.scale is not None
        return replace(super().make_info(classes), head=self.scale.to_head())

    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> L.LightningModule:
        """Makes the Lightning module."""
        from spanets.regression.module import Regression

        return Regression(model, info, self.recipe, updates)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns figures of learning curves, and of predicted against true numbers."""
        from spanets.regression.report import plot_scatter
        from spanets.training.report import plot_curves

        metrics = {"val/r2": "R²", "val/spearman": "Spearman"}
        title, loss = self.recipe.model.name, self.recipe.optim.loss
        return {
            "learning_curve": lambda path: plot_curves(history, path, title, loss, metrics),
            "scatter": partial(plot_scatter, results),
        }
