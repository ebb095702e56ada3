"""The task of image classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from spanets.backbones.factory import create_model
from spanets.checkpoint import ModelInfo
from spanets.classification.recipe import ClassificationRecipe
from spanets.training.task import (
    EvalOptions,
    Picture,
    Predict,
    PredictOptions,
    Task,
    build_features,
)
from spanets.weights import LoadReport
from spanets.weights.choosing import Given
from spanets.weights.classifiers import classifier_names
from spanets_runtime.errors import UsageError, first_line

if TYPE_CHECKING:
    import lightning as L

    from spanets.data.folds import Folds
    from spanets.data.loaders import Loaders
    from spanets.data.run_data import RunData
    from spanets.sources import Source
    from spanets.training.callbacks import Row


class ClassificationTask(Task[ClassificationRecipe]):
    """Predicts labels of whole images."""

    name = "classification"
    recipe_type = ClassificationRecipe
    is_classifier = True
    supported_options = frozenset(
        {"layout", "errors", "calibrate", "precision", "tta", "calibrated"}
    )
    preprocessing_keys = frozenset({"crop_pct", "interpolation", "mean", "std"})
    side_key = "image_size"
    score = "val/accuracy"
    scores = ("accuracy", "balanced_accuracy", "f1", "auroc", "loss")
    metric_labels: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/loss": "val loss",
        "val/accuracy": "val accuracy",
    }

    counts: Sequence[int] = ()
    """Number of training images of each class, once the loaders are made."""

    @classmethod
    def build_model(cls, info: ModelInfo) -> nn.Module:
        """Builds the classifier."""
        if info.model_args.get("features_only"):
            raise UsageError("model argument 'features_only' is not for classifiers")
        return create_model(info.model, info.model_args, num_classes=len(info.classes))

    @classmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns a function that labels images."""
        from spanets.classification.calibration import Mirrored, Tempered, temperature_of
        from spanets.classification.predict import Predictor

        network = source.network
        if options.calibrated:
            network = Tempered(network, temperature_of(source.info, source.word))
        if options.tta:
            network = Mirrored(network)
        return partial(Predictor(replace(source, network=network)), top=options.top)

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
            return evaluate_layout(source, root, layout, options.workers, batch_size, options.tta)
        return evaluate(
            source,
            root,
            options.workers,
            batch_size,
            options.trusted,
            errors=options.errors,
            calibrate=options.calibrate,
            precision=options.precision,
            tta=options.tta,
        )

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns the metrics as lines."""
        from spanets.classification.imagenet import describe_layout
        from spanets.classification.report import describe_metrics

        return describe_layout(results) if "layout" in results else describe_metrics(results)

    @classmethod
    def describe_export(cls, info: ModelInfo) -> dict[str, Any]:
        """Returns the metadata of an exported file, with the temperature if there is one."""
        found = super().describe_export(info)
        return {**found, "calibration": info.calibration} if info.calibration else found

    @classmethod
    def exportable(cls, source: Source, features_only: bool) -> nn.Module:
        """Returns the classifier, or its backbone."""
        return build_features(source) if features_only else source.network

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

    def load_weights(self, model: nn.Module, path: Given) -> LoadReport:
        """Loads initial weights; a new classifier starts at zero.

        timm's models initialise it in many ways, and in some the first loss is several times that
        of a guess, which disturbs the pretrained layers (zero: Kolesnikov et al., 2020, BiT).
        """
        report = super().load_weights(model, path)
        with torch.no_grad():
            for key in report.fresh:
                if key.rpartition(".")[0] in classifier_names(model):
                    model.get_parameter(key).zero_()
        return report

    def draw_folds(self) -> Folds:
        """Returns the fold of each image of the recipe's table."""
        from spanets.classification.tables import draw_folds

        return draw_folds(self.recipe.data)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError if the model does not return logits for the recipe's image size."""
        name, size = self.recipe.model.name, self.recipe.data.image_size
        try:
            with torch.no_grad():
                shape = tuple(model.eval()(torch.zeros(1, 3, size, size)).shape)
        # Models check sizes in different ways, and raise any kind of error.
        except Exception as error:
            raise UsageError(
                f"model {name} cannot take images of {size}x{size} pixels ({first_line(error)}); "
                "set data.image_size or model.args"
            ) from error
        if shape != (1, classes):
            raise UsageError(f"model {name} returns {shape}, not logits (1, {classes})")
        model.train()

    def check_batch_norm(self, model: nn.Module, batch: int) -> None:
        """Raises a UsageError if a batch of this size is too small for batch norm."""
        from spanets.training.batch_norm import refuse_single_values

        size = self.recipe.data.image_size
        refuse_single_values(model, torch.zeros(1, 3, size, size), batch)

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
