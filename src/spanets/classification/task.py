"""The task of image classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from spanets.checkpoint import ModelInfo
from spanets.classification.recipe import ClassificationData, ClassificationRecipe
from spanets.training.image_level import ImageLevelTask
from spanets.training.options import EvalOptions, PredictOptions, Views
from spanets.training.task import Picture, Predict
from spanets_runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import lightning as L

    from spanets.data.loaders import Loaders
    from spanets.data.run_data import RunData
    from spanets.sources import Source
    from spanets.training.callbacks import Row
    from spanets.training.report_parts import Examples, Scatter, Table


class ClassificationTask(ImageLevelTask[ClassificationRecipe]):
    """Predicts labels of whole images."""

    name = "classification"
    recipe_type = ClassificationRecipe
    noun = "image classifier"
    usage = (
        "probabilities = model(image).softmax(1)[0]\n"
        'print(model.pretrained_cfg["label_names"][probabilities.argmax()])'
    )
    supported_options = frozenset(
        {
            "layout",
            "errors",
            "calibrate",
            "precision",
            "tta",
            "tta_scales",
            "tta_crops",
            "calibrated",
            "tile",
        }
    )
    score = "val/accuracy"
    proportions = frozenset({"accuracy"})
    scores = ("accuracy", "balanced_accuracy", "f1", "auroc", "kappa_quadratic", "loss")
    metric_labels: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/loss": "val loss",
        "val/accuracy": "val accuracy",
    }

    counts: Sequence[int] = ()
    """Number of training images of each class, once the loaders are made."""

    def __init__(self, recipe: ClassificationRecipe) -> None:
        super().__init__(recipe)
        for key, value in (("optim.loss", recipe.optim.loss), ("trainer.metric", self.score[4:])):
            if value in ("ordinal", "kappa_quadratic") and recipe.data.ordered is None:
                raise UsageError(
                    f"{key} {value} needs the order of the classes, such as "
                    "--data.ordered '[low, medium, high]'"
                )

    @classmethod
    def survey_table(cls, data: ClassificationData) -> None:
        """Returns None: each image has one class."""

    @classmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns a function that labels images."""
        from spanets.classification.calibration import Tempered, temperature_of
        from spanets.classification.predict import Predictor
        from spanets.classification.tiles import predict_tiles
        from spanets.classification.views import average_views

        network = average_views(source, options.views)
        if options.calibrated:  # which excludes views
            network = Tempered(network, temperature_of(source.info, source.word))
        predictor = Predictor(replace(source, network=network))
        if options.tile is None:
            return partial(predictor, top=options.top)
        return partial(predict_tiles, predictor, options.tile, top=options.top, out=options.out)

    @classmethod
    def describe_tta(cls, views: Views) -> str:
        """Returns a line about the views that are averaged."""
        from spanets.classification.views import COMBINED

        return views.describe(COMBINED)

    @classmethod
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        """Measures a classifier; see `classification.evaluation` and `classification.imagenet`."""
        from spanets.classification.evaluation import evaluate
        from spanets.classification.imagenet import (
            choose_layout,
            evaluate_layout,
            refuse_extras,
        )

        root, batch_size = options.root, options.batch_size or cls.eval_batch
        if layout := choose_layout(source, root, options.layout):
            assert root is not None
            refuse_extras(options, layout)
            return evaluate_layout(source, root, layout, options.workers, batch_size, options.views)
        return evaluate(
            source,
            root,
            options.workers,
            batch_size,
            options.trusted,
            errors=options.errors,
            calibrate=options.calibrate,
            precision=options.precision,
            views=options.views,
        )

    @classmethod
    def evaluate_folds(
        cls, folder: Path, checkpoints: Mapping[int, Path], options: EvalOptions
    ) -> dict[str, Any]:
        """Measures every image by the fold that was not trained on it."""
        from spanets.classification.out_of_fold import evaluate_folds

        batch_size = options.batch_size or cls.eval_batch
        return evaluate_folds(folder, checkpoints, options, batch_size)

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns the metrics as lines."""
        from spanets.classification.imagenet import describe_layout
        from spanets.classification.report import describe_metrics

        return describe_layout(results) if "layout" in results else describe_metrics(results)

    @classmethod
    def report_results(cls, results: Mapping[str, Any]) -> list[Table | Scatter]:
        """Returns the confusion matrix or, of many classes, recalls and frequent confusions."""
        from spanets.classification.examples import report_results

        return report_results(results)

    @classmethod
    def find_examples(
        cls, source: Source, options: EvalOptions, results: Mapping[str, Any]
    ) -> Examples:
        """Returns images whose true class has a high or a low probability."""
        from spanets.classification.examples import find_examples

        return find_examples(source, options)

    @classmethod
    def describe_export(cls, info: ModelInfo) -> dict[str, Any]:
        """Returns the metadata of an exported file, with the temperature if there is one."""
        found = super().describe_export(info)
        return {**found, "calibration": info.calibration} if info.calibration else found

    @classmethod
    def publishable(cls, source: Source) -> tuple[nn.Module, dict[str, Any]]:
        """Returns the network, and the temperature if there is one."""
        fitted = source.info.calibration
        return source.network, {"calibration": fitted} if fitted else {}

    def check_batch(self, size: int) -> None:
        """Raises a UsageError for an odd batch size with mixup or CutMix, which need pairs."""
        if (self.recipe.data.mixup or self.recipe.data.cutmix) and size % 2:
            raise UsageError(
                f"data.mixup and data.cutmix pair the images of a batch, and {size} a device is "
                "odd; choose another optim.batch_size"
            )

    def make_loaders(self, batch_size: int, processes: int, run_data: RunData) -> Loaders:
        """Makes the loaders of a recipe; see `classification.data.make_loaders`."""
        from spanets.classification.data import count_classes, make_loaders

        loaders = make_loaders(self.recipe, batch_size, processes, run_data)
        self.counts = count_classes(loaders)
        return loaders

    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> L.LightningModule:
        """Makes the Lightning module."""
        from spanets.classification.module import Classification

        return Classification(model, info, self.recipe, updates, self.counts)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns figures of learning curves and of the confusion matrix."""
        from spanets.classification.report import plot_confusion
        from spanets.training.report import plot_curves

        metrics = {"val/accuracy": "accuracy", "val/auroc": "AUROC", "val/f1": "F1"}
        title, loss = self.recipe.model.name, "cross entropy"
        return {
            "learning_curve": lambda path: plot_curves(history, path, title, loss, metrics),
            "confusion_matrix": partial(plot_confusion, results["confusion"], results["classes"]),
        }
